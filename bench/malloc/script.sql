-- SPDX-License-Identifier: MIT
-- A table in memory of many rows: filled, indexed, joined, grouped, updated, deleted from. $ROWS is replaced by their number.
PRAGMA temp_store = MEMORY;
CREATE TABLE item (id INTEGER PRIMARY KEY, owner INTEGER, name TEXT, note TEXT);
CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO owner
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    SELECT i, 'owner ' || (i * 7919 % 5003) FROM n;
INSERT INTO item
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $ROWS)
    SELECT i, i * 31 % 5000 + 1, 'item ' || (i * 104729 % 1000003), substr('a note that may be long or short', 1, i % 33)
    FROM n;
CREATE INDEX item_name ON item (name);
CREATE INDEX item_owner ON item (owner);
SELECT owner.name, count(*), max(item.name), sum(length(note)) FROM item JOIN owner ON owner.id = item.owner
    GROUP BY owner.name ORDER BY 2 DESC, 1 LIMIT 10;
UPDATE item SET note = note || ', changed', name = 'x' || name WHERE id % 5 = 0;
DELETE FROM item WHERE id % 7 = 0;
SELECT upper(substr(name, 1, 7)), count(DISTINCT note), group_concat(id % 10, '') FROM item WHERE id % 50 = 1
    GROUP BY 1 ORDER BY 1 LIMIT 20;
SELECT count(*), sum(length(name) + length(note)) FROM item;
