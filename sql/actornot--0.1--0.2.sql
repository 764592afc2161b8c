/* actornot--0.1--0.2.sql: what makes version 0.2 of version 0.1 */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION actornot UPDATE TO '0.2'" to load this file. \quit

-- Each object is made here as actornot--0.2.sql makes it, its comment and its
-- rights included.  So far the two versions have the same objects.
