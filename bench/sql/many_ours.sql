\set no random(1, 100)
SELECT cardinality(actornot_post_many('bench', entities, payloads)) FROM arrays WHERE no = :no;
