/* SPDX-License-Identifier: MIT
 *
 * C++ as it is written: maps, strings, vectors, lists and shared pointers, made and dropped through operator new.
 * SIZE: thousands of records that go through.
 */
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "work.h"

namespace
{

struct record {
    std::string name;
    std::vector<uint32_t> numbers;
    std::map<std::string, std::string> fields;
};

typedef std::shared_ptr<record> record_pointer;

std::string word(uint64_t &random, size_t most)
{
    std::string text;
    for (size_t i = work_between(&random, 3, most); i > 0; i--)
        text += static_cast<char>('a' + work_below(&random, 26));
    return text;
}

record_pointer make(uint64_t &random)
{
    record_pointer made = std::make_shared<record>();
    made->name = word(random, 40);
    for (size_t i = work_below(&random, 20); i > 0; i--)
        made->numbers.push_back(static_cast<uint32_t>(work_random(&random)));
    for (size_t i = work_below(&random, 6); i > 0; i--)
        made->fields[word(random, 12)] = word(random, 60);
    return made;
}

class store
{
  public:
    void put(const record_pointer &made)
    {
        by_name[made->name] = made;
        recent.push_back(made);
        if (recent.size() > 5000) {
            by_name.erase(recent.front()->name);
            recent.pop_front();
        }
        groups[made->numbers.size()].push_back(made->name);
    }

    /* Walks over all fields of what is there, as a report would, and drops the groups. */
    uint64_t report()
    {
        uint64_t sum = 0;
        for (auto &group : groups) {
            std::string joined;
            for (auto &name : group.second)
                joined += name + ",";
            sum += joined.size();
        }
        groups.clear();
        for (auto &entry : by_name)
            for (auto &field : entry.second->fields)
                sum += field.first.size() + field.second.size();
        return sum;
    }

  private:
    std::unordered_map<std::string, record_pointer> by_name;
    std::list<record_pointer> recent;
    std::map<size_t, std::vector<std::string>> groups;
};

} // namespace

int main(int argc, char **argv)
{
    work_arguments arguments = work_begin(argc, argv);
    uint64_t random = work_seed(0), sum = 0;
    store records;
    for (size_t i = 0; i < arguments.size * 1000; i++) {
        record_pointer made = make(random);
        records.put(made);
        if (i % 8 == 0) /* one changed copy that is dropped at once */
            sum += record(*made).fields.size();
        if (i % 10000 == 0)
            sum += records.report();
    }
    return work_end(sum + records.report());
}
