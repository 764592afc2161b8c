# CatalogDump - the extension as the system catalogs describe it, as text.
#
# Two databases in which it is the same give the same lines, whatever OIDs its
# objects have there.
#
#	my $lines = dump_catalog($node, 'db')
#	my $lines = dump_catalog($node, 'db', $change)	as it is after a change,
#													which is rolled back
#	catalog_difference($lines, $others)		'' if there is none

package CatalogDump;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(dump_catalog catalog_difference);

# An object is part of it that is a member, that lies in the schema of the
# tables, or that goes with such a one (deptype a: auto, i: internal).  Of a
# catalog row all columns count but those named here: OIDs, which are shown
# as names, and what the server keeps of an object's data.  Of attoptions
# pg_attver does not count: minor releases (15.20) keep a number of their own
# there for each column, in every database another one.
my $query = q{
CREATE FUNCTION pg_temp.name_of(class oid, object oid, sub int DEFAULT 0)
RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(pg_describe_object(class, object, sub),
			'(pg_toast)_\d+', '\1', 'g')
$$;

CREATE TEMPORARY TABLE part ON COMMIT DROP AS
WITH RECURSIVE found (class, object) AS (
	SELECT classid, objid FROM pg_depend
	 WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass AND
		   refobjid = (SELECT oid FROM pg_extension WHERE extname = 'actornot')
	UNION
	SELECT classid, objid FROM pg_depend
	 WHERE deptype = 'n' AND refclassid = 'pg_namespace'::regclass AND
		   refobjid = 'actornot'::regnamespace
	UNION
	SELECT d.classid, d.objid
	  FROM found f
		JOIN pg_depend d ON d.refclassid = f.class AND d.refobjid = f.object
	 WHERE d.deptype IN ('a', 'i') AND
		   (d.classid, d.objid) IS DISTINCT FROM (f.class, f.object))
SELECT class, object, pg_temp.name_of(class, object) AS name,
	   class::regclass::text AS catalog
  FROM found;

SELECT line FROM (
	SELECT format('%s: %s', name, detail) AS line
	  FROM part, LATERAL (
		SELECT to_jsonb(c) - '{oid,relnamespace,reltype,reloftype,relowner,relam,'
				'relfilenode,reltablespace,relpages,reltuples,relallvisible,'
				'relallfrozen,reltoastrelid,relrewrite,relfrozenxid,relminmxid}'::text[]
				|| jsonb_build_object('owner', relowner::regrole,
					'am', (SELECT amname FROM pg_am a WHERE a.oid = relam),
					'relname', regexp_replace(relname, '^(pg_toast)_\d+', '\1'),
					'view', CASE WHEN relkind = 'v' THEN pg_get_viewdef(c.oid) END)
				AS detail
		  FROM pg_class c WHERE catalog = 'pg_class' AND c.oid = object
		UNION ALL
		SELECT jsonb_build_object('column', a.attnum) || to_jsonb(a)
				- '{attrelid,atttypid,attcollation,attcacheoff,attoptions}'::text[]
				|| jsonb_build_object('type', format_type(atttypid, atttypmod),
					'collation', attcollation::regcollation,
					'options', (SELECT jsonb_agg(o) FROM unnest(attoptions) o
								 WHERE NOT starts_with(o, 'pg_attver=')),
					'default', (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
								 WHERE adrelid = attrelid AND adnum = attnum))
		  FROM pg_attribute a WHERE catalog = 'pg_class' AND attrelid = object
		UNION ALL
		SELECT to_jsonb(i) - '{indexrelid,indrelid,indexprs,indpred}'::text[]
				|| jsonb_build_object('definition', regexp_replace(
					pg_get_indexdef(indexrelid), '(pg_toast)_\d+', '\1', 'g'))
		  FROM pg_index i WHERE catalog = 'pg_class' AND indexrelid = object
		UNION ALL
		SELECT to_jsonb(s) - '{seqrelid,seqtypid}'::text[]
				|| jsonb_build_object('type', seqtypid::regtype)
		  FROM pg_sequence s WHERE catalog = 'pg_class' AND seqrelid = object
		UNION ALL
		SELECT to_jsonb(o) - '{oid,connamespace,conrelid,contypid,conindid,'
				'conparentid,confrelid,conbin}'::text[]
				|| jsonb_build_object('definition', pg_get_constraintdef(o.oid))
		  FROM pg_constraint o WHERE catalog = 'pg_constraint' AND o.oid = object
		UNION ALL
		SELECT to_jsonb(t) - '{oid,tgrelid,tgparentid,tgfoid,tgconstrrelid,'
				'tgconstrindid,tgconstraint,tgqual}'::text[]
				|| jsonb_build_object('definition', pg_get_triggerdef(t.oid))
		  FROM pg_trigger t WHERE catalog = 'pg_trigger' AND t.oid = object
		UNION ALL
		SELECT to_jsonb(r) - '{oid,ev_class,ev_qual,ev_action}'::text[]
				|| jsonb_build_object('definition', pg_get_ruledef(r.oid))
		  FROM pg_rewrite r WHERE catalog = 'pg_rewrite' AND r.oid = object
		UNION ALL
		SELECT to_jsonb(p) - '{oid,pronamespace,proowner,prolang,prosupport,'
				'prorettype,proargtypes,proallargtypes,proargdefaults,prosqlbody}'::text[]
				|| jsonb_build_object('owner', proowner::regrole,
					'definition', pg_get_functiondef(p.oid))
		  FROM pg_proc p WHERE catalog = 'pg_proc' AND p.oid = object
		UNION ALL
		SELECT to_jsonb(t) - '{oid,typnamespace,typowner,typrelid,typelem,typarray,'
				'typbasetype,typcollation,typdefaultbin}'::text[]
				|| jsonb_build_object('owner', typowner::regrole,
					'of', pg_temp.name_of('pg_class'::regclass, typrelid),
					'element', typelem::regtype, 'array', typarray::regtype,
					'base', typbasetype::regtype,
					'collation', typcollation::regcollation)
		  FROM pg_type t WHERE catalog = 'pg_type' AND t.oid = object
		UNION ALL
		SELECT to_jsonb(c) - '{oid,castsource,casttarget,castfunc}'::text[]
				|| jsonb_build_object('function', castfunc::regprocedure)
		  FROM pg_cast c WHERE catalog = 'pg_cast' AND c.oid = object
		UNION ALL
		SELECT to_jsonb(n) - '{oid,nspowner}'::text[]
				|| jsonb_build_object('owner', nspowner::regrole)
		  FROM pg_namespace n WHERE catalog = 'pg_namespace' AND n.oid = object) AS s
	UNION ALL
	SELECT format('comment on %s: %s',
			pg_temp.name_of(classoid, objoid, objsubid), to_json(description))
	  FROM pg_description JOIN part ON class = classoid AND object = objoid
	UNION ALL
	SELECT format('rights at first on %s: %s %s',
			pg_temp.name_of(classoid, objoid, objsubid), privtype, initprivs)
	  FROM pg_init_privs JOIN part ON class = classoid AND object = objoid
	UNION ALL
	SELECT format('%s depends (%s) on %s', pg_temp.name_of(classid, objid, objsubid),
			deptype, pg_temp.name_of(refclassid, refobjid, refobjsubid))
	  FROM pg_depend JOIN part ON class = classid AND object = objid
	UNION ALL
	SELECT format('part: %s', name) FROM part
	UNION ALL
	SELECT format('extension: %s', to_jsonb(e)
				- '{oid,extowner,extnamespace,extconfig,extcondition}'::text[]
				|| jsonb_build_object('owner', extowner::regrole,
					'schema', extnamespace::regnamespace))
	  FROM pg_extension e WHERE extname = 'actornot'
	UNION ALL
	SELECT format('dumped: %s %s', pg_temp.name_of('pg_class'::regclass, c.oid),
			c.condition)
	  FROM pg_extension, unnest(extconfig, extcondition) AS c (oid, condition)
	 WHERE extname = 'actornot') AS lines
 ORDER BY line COLLATE "C";
};

sub dump_catalog
{
	my ($node, $db, $change) = @_;

	$change = defined $change ? "$change;" : '';
	return $node->safe_psql($db,
		"SET client_min_messages = warning; BEGIN; $change $query ROLLBACK");
}

# The lines that only one of the two has.
sub catalog_difference
{
	my ($one, $other) = @_;
	my %count;

	$count{$_}++ foreach split /\n/, $one;
	$count{$_}-- foreach split /\n/, $other;
	return join "\n",
	  map { ($count{$_} > 0 ? '< ' : '> ') . $_ }
	  grep { $count{$_} } sort keys %count;
}

1;
