CREATE SEQUENCE bench_n;
CREATE TABLE posted (n bigint);
CREATE TABLE effect (n bigint);
