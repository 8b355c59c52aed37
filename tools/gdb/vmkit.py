# SPDX-License-Identifier: MIT
"""Commands of gdb that look at vmkit's heaps: in a program that is stopped, or in its core file.

    (gdb) source .../share/vmkit/gdb/vmkit.py
    (gdb) vmkit heaps
    (gdb) vmkit heap [HEAP]
    (gdb) vmkit span ADDRESS
    (gdb) vmkit object ADDRESS

They read memory and debug information and call nothing, so the program may have been stopped anywhere, in the middle of
the library too: then a figure may be that of a moment before. See docs/tools.md. What the bits and lists mean is told by
src/common/heap/object.h and heap.h; the constants below are theirs.
"""

import gdb

PAGE_SHIFT = 13
GRANULE_SHIFT = 4
CHUNK_SHIFT = 9  # pages of the window for which `present` has a bit
CLASS_LINEAR = 8
CANARY_SIZE = 8
KEEPER_ORPHAN, KEEPER_LARGE = 1, 2
HARDENED = 4  # VMK_HEAP_HARDENED
LAYOUTS = {1: "64", 2: "limited", 3: "32"}
MASK = (1 << 64) - 1


class Problem(Exception):
    """What keeps a command from answering, as a sentence."""


# --- memory -----------------------------------------------------------------------------------------------------------


def read(address, size):
    try:
        return bytes(gdb.selected_inferior().read_memory(address, size))
    except (gdb.MemoryError, OverflowError):
        raise Problem("there is no memory to be read at %#x" % address) from None


def byte_order():
    return "big" if "big endian" in gdb.execute("show endian", to_string=True) else "little"


def number(data, offset, size):
    return int.from_bytes(data[offset : offset + size], byte_order())


class Record:
    """The whole of a structure that was read at once: its scalars are attributes."""

    def __init__(self, layout, data, at):
        self.__dict__.update({name: number(data, at + offset, size) for name, offset, size in layout})


class Layout:
    """Where the scalars of a structure are."""

    def __init__(self, kind):
        scalar = (gdb.TYPE_CODE_INT, gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_ENUM, gdb.TYPE_CODE_BOOL)
        self.size = kind.sizeof
        self.fields = []
        for field in kind.fields():
            real = field.type.strip_typedefs()
            if real.code in scalar:
                self.fields.append((field.name, field.bitpos // 8, real.sizeof))

    def records(self, address, count):
        data = read(address, count * self.size) if count else b""
        return [Record(self.fields, data, i * self.size) for i in range(count)]


def size_text(size):
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 10240 or unit == "GiB":
            return "%d %s" % (size, unit)
        size //= 1024


def count_text(count, noun):
    return "%d %s%s" % (count, noun, "" if count == 1 else "s")


# --- the library ------------------------------------------------------------------------------------------------------


class Library:
    """One copy of vmkit in the program: linked with it, or in libvmkit-malloc.so."""

    def __init__(self, objfile, create):
        self.objfile = objfile
        self.heap_file = create.symtab

    def variable(self, name):
        symbol = self.objfile.lookup_global_symbol(name)
        return symbol.value() if symbol is not None else None

    def static(self, symtab, name):
        for symbol in symtab.static_block():
            if symbol.name == name:
                return symbol.value()
        raise Problem("the variable %s of %s is not in the debug information" % (name, symtab.filename))

    def page_size(self):
        symbol = self.objfile.lookup_global_symbol("vmk_page_size")
        return int(self.static(symbol.symtab, "known_page_size"))

    def default_heap(self):
        value = self.variable("vmki_default_heap")  # not where a program has no objects
        return int(value) if value is not None else 0

    def heaps(self):
        pointer = self.static(self.heap_file, "list")
        while int(pointer) != 0:
            yield Heap(self, pointer)
            pointer = pointer["next"]

    def threads(self, heap_number):
        """The caches of a heap, by address: whose they are."""
        owners = {}
        selected, frame = gdb.selected_thread(), None
        try:
            frame = gdb.selected_frame()
        except gdb.error:
            pass
        for thread in gdb.selected_inferior().threads():
            try:
                thread.switch()
                own = self.variable("vmki_posix_self")
                kind = gdb.lookup_type("vmki_thread").pointer()
                cache = int(own.cast(kind)["cache"][heap_number]) if own is not None and int(own) != 0 else 0
            except gdb.error:  # a core file without the thread's registers, or without libthread_db
                continue
            if cache != 0:
                owners[cache] = "thread %d (%s)" % (thread.num, " ".join(str(i) for i in thread.ptid if i != 0))
        if selected is not None:
            selected.switch()
        if frame is not None:
            frame.select()
        return owners


def libraries():
    if not gdb.selected_inferior().threads():
        raise Problem("there is neither a running program nor a core file: run it first, or use the command core-file")
    found = []
    for objfile in gdb.objfiles():
        create = objfile.lookup_global_symbol("vmk_heap_create")
        if create is not None and create.symtab is not None:
            found.append(Library(objfile, create))
    if not found:
        raise Problem(
            "the program has no vmkit with debug information: it must be built with -g "
            "(CMAKE_BUILD_TYPE=RelWithDebInfo), and not be stripped"
        )
    return found


def all_heaps():
    return [heap for library in libraries() for heap in library.heaps()]


# --- a heap -----------------------------------------------------------------------------------------------------------


def mixed(value):
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def class_size(size_class):
    if size_class <= CLASS_LINEAR:
        return size_class << GRANULE_SHIFT
    above = size_class - CLASS_LINEAR - 1
    return ((above & 7) + 9) << ((above >> 3) + GRANULE_SHIFT)


class Heap:
    def __init__(self, library, pointer):
        self.library = library
        self.address = int(pointer)
        self.value = pointer.dereference()
        self.view = self.value["view"]
        self.origin = int(self.view["origin"])
        self.word = self.view["origin"].type.sizeof
        self.hardened = int(self.value["options"]["flags"]) & HARDENED != 0
        self.objects = self.value["objects"]
        self.is_default = self.address == library.default_heap()

    def name(self):
        kinds = [kind for kind, true in (("the default heap", self.is_default), ("hardened", self.hardened)) if true]
        return "%#x%s" % (self.address, " (%s)" % ", ".join(kinds) if kinds else "")

    # spans

    def span_id(self, address):
        """0: the address is in no span."""
        page = (address - self.origin) >> PAGE_SHIFT
        if page < 0 or page >= int(self.view["limit"]):
            return 0
        present = int(self.view["present"])
        if present != 0:
            chunk = page >> CHUNK_SHIFT
            if not number(read(present + chunk // 32 * 4, 4), 0, 4) >> chunk % 32 & 1:
                return 0
        return number(read(int(self.view["spans"]) + page * 4, 4), 0, 4)

    def record(self, span_id):
        return self.view["records"][span_id]

    def slabs_made(self):
        return int(self.objects["slabs"]["ready"]) if self.objects["begun"] else 0

    def slabs(self, first=1, count=None):
        """Those that are slabs or large objects, with their ids."""
        layout = Layout(gdb.lookup_type("vmki_slab"))
        made = self.slabs_made()
        count = made - first if count is None else min(count, made - first)
        if count <= 0:
            return []
        base = int(self.objects["slabs"]["column"][0])
        return [slab for slab in layout.records(base + first * layout.size, count) if slab.keeper != 0]

    def slab(self, span_id):
        found = self.slabs(span_id, 1)
        return found[0] if found else None

    # bits

    def words(self, column, base, count):
        """So many words of a column of bits, from the one of an address at the start of a page."""
        first = (base - self.origin) >> GRANULE_SHIFT
        data = read(int(column) + first // 8, count * self.word)
        return [number(data, i * self.word, self.word) for i in range(count)]

    def slab_words(self, slab):
        """The words of a slab in the columns objects, taken, remote."""
        bits = slab.capacity * (class_size(slab.size_class) >> GRANULE_SHIFT)
        count = (bits + 8 * self.word - 1) // (8 * self.word)
        columns = (self.view["marks"], self.value["taken"], self.value["remote"])
        return [self.words(column, slab.base, count) for column in columns]

    def slot_bits(self, slab):
        """(objects, taken, remote) of each slot."""
        granules = class_size(slab.size_class) >> GRANULE_SHIFT
        bits = 8 * self.word
        columns = self.slab_words(slab)
        for slot in range(slab.capacity):
            word, bit = divmod(slot * granules, bits)
            yield tuple(column[word] >> bit & 1 for column in columns)

    def kept_back(self, slab, address):
        canary = mixed((int(self.objects["secret"]) + address) & MASK) | 1
        return number(read(address + class_size(slab.size_class) - CANARY_SIZE, 8), 0, 8) == canary

    def slot_state(self, slab, slot, bits):
        is_object, taken, remote = bits
        if is_object and remote:
            return "freed by another thread, which its keeper has not seen yet"
        if is_object and self.hardened and self.kept_back(slab, slab.base + slot * class_size(slab.size_class)):
            return "freed, and kept back for a while"
        if is_object:
            return "in use"
        return "free, at hand in its keeper's cache" if taken else "free"

    def objects_of(self, slab):
        if not self.hardened:  # there may be millions
            objects, _, remote = self.slab_words(slab)
            return sum(bin(word & ~freed).count("1") for word, freed in zip(objects, remote))
        states = (self.slot_state(slab, slot, bits) for slot, bits in enumerate(self.slot_bits(slab)))
        return sum(state == "in use" for state in states)

    def usable(self, slab):
        if slab.keeper == KEEPER_LARGE:
            guard = max(self.library.page_size() >> PAGE_SHIFT, 1) if self.hardened else 0
            return (slab.pages - guard) << PAGE_SHIFT
        return class_size(slab.size_class) - (CANARY_SIZE if self.hardened else 0)

    # huge objects

    def huge(self):
        """(object, usable, base, limit), by address."""
        found, stack, node = [], [], self.objects["huge"]
        region = gdb.lookup_type("vmk_region").sizeof
        while stack or int(node) != 0:
            while int(node) != 0:
                stack.append(node)
                node = node["left"]
            node = stack.pop()
            base, limit = int(node["base"]), int(node["limit"])
            usable = number(read(base + region, self.word), 0, self.word)
            found.append((base + self.library.page_size(), usable, base, limit))
            node = node["right"]
        return found

    # arenas

    def arenas(self):
        pointer = self.value["arenas"]["column"][0].cast(gdb.lookup_type("vmki_arena").pointer())
        for i in range(int(self.value["arena_count"])):
            arena = pointer[i]
            first = self.origin + (int(arena["first"]) << PAGE_SHIFT)
            yield first, int(arena["pages"]) << PAGE_SHIFT, int(arena["grown"]) << PAGE_SHIFT

    def caches(self):
        for which, text in (("caches", "a thread's cache"), ("spare", "a cache that no thread has now")):
            cache = self.objects[which]
            while int(cache) != 0:
                yield cache, text
                cache = cache["next"]

    def by_class(self):
        """{class: [objects, bytes, spans, bytes of spans]}; 0 is the class of large objects."""
        sums = {}
        for slab in self.slabs():
            large = slab.keeper == KEEPER_LARGE
            line = sums.setdefault(0 if large else slab.size_class, [0, 0, 0, 0])
            objects = 1 if large else self.objects_of(slab)
            line[0] += objects
            line[1] += objects * (self.usable(slab) if large else class_size(slab.size_class))
            line[2] += 1
            line[3] += slab.pages << PAGE_SHIFT
        return sums


# --- what commands print ----------------------------------------------------------------------------------------------


def keeper_text(heap, slab):
    if slab.keeper == KEEPER_LARGE:
        return "nobody, it is a large object"
    if slab.keeper == KEEPER_ORPHAN:
        return "nobody, it is an orphan: its thread has ended"
    owners = heap.library.threads(int(heap.objects["number"]))
    return "the cache %#x of %s" % (slab.keeper, owners.get(slab.keeper, "a thread that can't be told"))


def print_heap(heap):
    value = heap.value
    plan = value["plan"]
    print("heap      %s" % heap.name())
    print("layout    %s" % LAYOUTS.get(int(plan["layout"]), "unknown"))
    print("window    %s at %#x" % (size_text(int(plan["window_pages"]) << PAGE_SHIFT), heap.origin))
    for base, size, grown in heap.arenas():
        print("arena     %#x, %s reserved, %s grown into" % (base, size_text(size), size_text(grown)))
    print("spans     %d" % int(value["span_count"]))
    pages = [int(value[field]) for field in ("in_use", "in_use_peak", "idle", "released")]
    print("pages     %d in use (%d at the peak), %d free, %d free and given back; of 8 KiB" % tuple(pages))
    caches = [int(value["objects"][field]) for field in ("cache_count", "spare_count", "orphan_count")]
    print("caches    %d of threads, %d spare; %d orphaned slabs" % tuple(caches))
    print("")
    print("%8s %8s %10s %12s %8s %12s" % ("class", "size", "objects", "bytes", "spans", "of bytes"))
    sums = heap.by_class()
    total = [0, 0, 0, 0]
    for size_class in sorted(sums, key=lambda c: c or 1000):
        name, size = (str(size_class), str(class_size(size_class))) if size_class else ("large", "")
        print("%8s %8s %10d %12d %8d %12d" % ((name, size) + tuple(sums[size_class])))
        total = [a + b for a, b in zip(total, sums[size_class])]
    huge = heap.huge()
    if huge:
        line = (len(huge), sum(h[1] for h in huge), len(huge), sum(h[3] - h[2] for h in huge))
        print("%8s %8s %10d %12d %8d %12d" % (("huge", "") + line))
        total = [a + b for a, b in zip(total, line)]
    print("%8s %8s %10d %12d %8d %12d" % (("all", "") + tuple(total)))


def heap_of(address):
    """(heap, id of the span) of an address in a span; the heap of a free page, with 0."""
    heaps = all_heaps()
    for heap in heaps:
        span_id = heap.span_id(address)
        if span_id != 0:
            return heap, span_id
    for heap in heaps:
        for base, size, grown in heap.arenas():
            if base <= address < base + grown:
                return heap, 0
            if base <= address < base + size:
                raise Problem("%#x is reserved by the heap %s, which has not grown so far" % (address, heap.name()))
        meta = heap.value["meta"]
        if int(meta["base"]) <= address < int(meta["base"]) + int(meta["size"]):
            raise Problem("%#x is in the tables of the heap %s" % (address, heap.name()))
    raise Problem("%#x is in no heap of vmkit" % address)


def find_huge(address):
    for heap in all_heaps():
        for huge in heap.huge():
            if huge[2] <= address < huge[3]:
                return heap, huge
    return None


def print_span(heap, span_id):
    record = heap.record(span_id)
    base, pages = int(record["base"]), int(record["pages"])
    print("span      %d: %s at %#x, %s" % (span_id, count_text(pages, "page"), base, size_text(pages << PAGE_SHIFT)))
    slab = heap.slab(span_id)
    if slab is None:
        used_for = "a span without objects"
        for cache, text in heap.caches():
            if int(cache["span"]) == int(record.address):
                used_for = "%s, %#x" % (text, int(cache))
        print("is        %s" % used_for)
    elif slab.keeper == KEEPER_LARGE:
        print("is        a large object of %d bytes" % heap.usable(slab))
    else:
        size = class_size(slab.size_class)
        print("is        a slab of class %d: %s of %d bytes" % (slab.size_class, count_text(slab.capacity, "slot"), size))
        states = {}
        for slot, bits in enumerate(heap.slot_bits(slab)):
            state = heap.slot_state(slab, slot, bits)
            states[state] = states.get(state, 0) + 1
        for state in sorted(states, key=lambda s: (s != "in use", s)):
            print("slots     %d %s" % (states[state], state))
        print("keeper    %s" % keeper_text(heap, slab))
    print("heap      %s" % heap.name())


def print_place(address, start, what):
    if address == start:
        print("address   %#x is the start of %s" % (address, what))
    else:
        print("address   %#x is %d bytes into %s at %#x" % (address, address - start, what, start))


def print_slot(heap, slab, address):
    size = class_size(slab.size_class)
    slot = (address - slab.base) // size
    if slot >= slab.capacity:
        raise Problem("%#x is in span %d, behind the last slot of a slab" % (address, slab.id))
    state = heap.slot_state(slab, slot, list(heap.slot_bits(slab))[slot])
    what = "an object" if state == "in use" else "a slot"
    print_place(address, slab.base + slot * size, what)
    print("state     %s" % state)
    print("size      %d bytes can be used" % heap.usable(slab))
    print("class     %d, of %d bytes; slot %d of %d" % (slab.size_class, size, slot, slab.capacity))
    print("keeper    %s" % keeper_text(heap, slab))
    print("span      %d: %s at %#x" % (slab.id, count_text(slab.pages, "page"), slab.base))
    print("heap      %s" % heap.name())


def print_object(address):
    huge = find_huge(address)
    if huge is not None:
        heap, (start, usable, base, limit) = huge
        if address < start:
            raise Problem("%#x is in the page before the huge object %#x, which is the library's" % (address, start))
        print_place(address, start, "a huge object")
        print("state     in use")
        print("size      %d bytes can be used" % usable)
        print("keeper    nobody, it has a reservation of its own: %s at %#x" % (size_text(limit - base), base))
        print("heap      %s" % heap.name())
        return
    heap, span_id = heap_of(address)
    if span_id == 0:
        text = "%#x is in a free page of the heap %s: what was there was freed, or never was"
        raise Problem(text % (address, heap.name()))
    slab = heap.slab(span_id)
    if slab is None:
        raise Problem("%#x is in span %d of the heap %s, which has no objects" % (address, span_id, heap.name()))
    if slab.keeper != KEEPER_LARGE:
        print_slot(heap, slab, address)
        return
    print_place(address, slab.base, "a large object")
    print("state     in use")
    print("size      %d bytes can be used" % heap.usable(slab))
    print("keeper    %s" % keeper_text(heap, slab))
    print("span      %d: %s" % (slab.id, count_text(slab.pages, "page")))
    print("heap      %s" % heap.name())


# --- the commands -----------------------------------------------------------------------------------------------------


def address_of(argument, usage):
    if not argument.strip():
        raise Problem("usage: " + usage)
    value = gdb.parse_and_eval(argument)
    if value.type.strip_typedefs().code == gdb.TYPE_CODE_ARRAY:
        value = value.address
    return int(value) & MASK


class Command(gdb.Command):
    def __init__(self, name, answer):
        self.__doc__ = answer.__doc__
        self.answer = answer
        super().__init__(name, gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        self.dont_repeat()
        try:
            self.answer(argument)
        except Problem as problem:
            raise gdb.GdbError("vmkit: %s" % problem) from None


def heaps_command(argument):
    """List vmkit's heaps: their address, layout, memory and objects."""
    if argument.strip():
        raise Problem("usage: vmkit heaps")
    heaps = all_heaps()
    if not heaps:
        print("no heap has been made yet")
    for heap in heaps:
        objects = sum(line[0] for line in heap.by_class().values()) + len(heap.huge())
        layout = LAYOUTS.get(int(heap.value["plan"]["layout"]), "unknown")
        used = size_text(int(heap.value["in_use"]) << PAGE_SHIFT)
        text = (heap.name(), layout, used, count_text(objects, "object"))
        print("heap %s: layout %s, %s in use by spans, %s" % text)


def heap_command(argument):
    """Show a heap of vmkit: where it is, its pages, its objects by class.
Usage: vmkit heap [ADDRESS]; without an address the default heap, or the only one."""
    heaps = all_heaps()
    if argument.strip():
        address = address_of(argument, "vmkit heap [ADDRESS]")
        chosen = [heap for heap in heaps if heap.address == address]
        if not chosen:
            raise Problem("%#x is no heap; the command vmkit heaps lists them" % address)
    else:
        chosen = [heap for heap in heaps if heap.is_default] or heaps
        if not chosen:
            raise Problem("no heap has been made yet")
        if len(chosen) > 1 and not chosen[0].is_default:
            raise Problem("there are %d heaps, of which none is the default one: say which" % len(chosen))
    print_heap(chosen[0])


def span_command(argument):
    """Show the span that an address lies in, and what it is used for.
Usage: vmkit span ADDRESS"""
    address = address_of(argument, "vmkit span ADDRESS")
    heap, span_id = heap_of(address)
    if span_id == 0:
        raise Problem("%#x is in a free page of the heap %s" % (address, heap.name()))
    print_span(heap, span_id)


def object_command(argument):
    """Show which object an address belongs to, and whether it is in use.
Usage: vmkit object ADDRESS"""
    print_object(address_of(argument, "vmkit object ADDRESS"))


class Prefix(gdb.Command):
    """Look at vmkit's heaps, spans and objects."""

    def __init__(self):
        super().__init__("vmkit", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)


Prefix()
Command("vmkit heaps", heaps_command)
Command("vmkit heap", heap_command)
Command("vmkit span", span_command)
Command("vmkit object", object_command)
