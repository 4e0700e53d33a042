-- What tests/pod/in_guest_programs has sqlite3 do: everything here has one answer.
pragma journal_mode = wal;
create table item (id integer primary key, name text, weight real, kind integer);
begin;
with recursive n (i) as (select 1 union all select i + 1 from n where i < 30000)
insert into item select i, printf('item %x of %d', (i * 7919) % 100003, i % 97), (i * 31 % 1009) / 8.0, i % 13 from n;
commit;
create index by_name on item (name);
create index by_kind on item (kind, weight desc);
select 'result', count(*), sum(weight), avg(weight), min(name), max(name) from item;
select kind, count(*), total(weight), group_concat(substr(name, 6, 2), '') from item where id % 211 = 0 group by kind order by kind;
select a.name, b.name from item a join item b on b.id = (a.id * 17) % 30000 + 1 where a.kind = 3 and b.weight > 120 order by 1, 2;
begin;
update item set weight = weight * 1.25, name = upper(name) where kind in (2, 5, 7);
delete from item where id % 10 = 3;
savepoint half;
delete from item;
rollback to half;
commit;
select 'result', count(*), sum(weight), sum(length(name)), total(id * weight) from item;
with recursive
	x (i, s) as (select 1, 0 union all select i + 1, (s * 31 + i) % 1000003 from x where i < 50000)
select 'result', max(s), sum(s) from x;
select kind, row_number() over (partition by kind order by weight desc, id), id from item where id < 500 order by 1, 2;
select 'result', sum(json_extract(json_object('a', id, 'b', name), '$.a')), max(json_valid(json_array(name, weight))) from item;
vacuum;
pragma wal_checkpoint(truncate);
select name, weight from item order by weight desc, name limit 500;
