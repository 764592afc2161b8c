# A disk that is full: posts fail with an error that says so, what is in the log
# is processed, and rotation goes on when there is room.
#
# The log is moved to a small file system, which scripts/test mounts if it is
# run by root.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $small = $ENV{ACTORNOT_SMALL_FS};

plan skip_all => 'needs a small file system, which only root can mount'
  unless defined $small;
unlink "$small/ballast";
system('rm', '-rf', "$small/space") == 0 or die;
mkdir "$small/space" or die $!;

my $node = new_server('main', conf => 'actornot.segment_size = 512kB');
my $ballast = "$small/ballast";

$node->start;
install_recorder($node, 'postgres');
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$small/space'");
$node->safe_psql(
	'postgres', q{
CREATE TABLE posted (entity text, id bigint);
DO $$
BEGIN
	FOR n IN 0 .. 15 LOOP
		EXECUTE format('ALTER TABLE actornot.message_%s SET TABLESPACE small', n);
		EXECUTE format('ALTER INDEX actornot.message_%s_key SET TABLESPACE small', n);
	END LOOP;
END
$$;
CREATE PROCEDURE post(entity text, size int) LANGUAGE sql AS $$
	INSERT INTO posted SELECT entity, actornot_post('recorder', entity, to_jsonb(repeat('x', size)))
$$;
CHECKPOINT;
});
append_to_file($ballast, 'x' x (512 * 1024));

sub pending_and_left
{
	return $node->safe_psql('postgres', q{
		SELECT actornot_pending('recorder'),
			   (SELECT count(*) FROM posted) - (SELECT count(*) FROM recorded)});
}

# Some that wait for ever, and a backlog up to the brim.
$node->safe_psql('postgres', q{SELECT actornot_pause('recorder', 'paused')});
$node->safe_psql('postgres', q{CALL post('paused', 1000)}) foreach (1 .. 3);
$node->safe_psql('postgres', q{SELECT actornot_pause('recorder')});
my ($status, $stdout, $stderr) = $node->psql('postgres', q{
DO $$
BEGIN
	FOR n IN 1 .. 20000 LOOP
		CALL post('e' || n % 50, 1000);
		COMMIT;
	END LOOP;
END
$$}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($stderr, qr/ERROR:  53100: could not extend file .*No space left on device/,
	'a post fails with an error that says why');
my ($pending, $left) = split /\|/, pending_and_left();
cmp_ok($pending, '>', 1000, 'there is a backlog');
is($pending, $left, 'all of it that was committed is there');
fails_with($node, 'postgres', '53100', q{
	DO $$ BEGIN FOR n IN 1 .. 100 LOOP CALL post('e1', 1000); END LOOP; END $$},
	'still full');

# It is worked off; what rotation cannot do is reported.
my $offset = log_offset($node);
$node->safe_psql('postgres', q{SELECT actornot_resume('recorder')});
wait_for_value($node, 'postgres', q{SELECT actornot_pending('recorder')},
	3, 'the backlog is processed though the disk is full');
$node->wait_for_log(
	qr/WARNING:  could not rotate segment "actornot.message_\d+": could not extend file.*No space left/,
	$offset);
is(pending_and_left(), '3|3', 'nothing is lost of it');

unlink $ballast or die $!;
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM actornot.segment WHERE NOT current AND upper IS DISTINCT FROM '1'},
	0, 'rotation goes on when there is room');
$node->safe_psql('postgres', q{
	DO $$ BEGIN FOR n IN 1 .. 1000 LOOP CALL post('e' || n % 50, 1000); COMMIT; END LOOP; END $$});
$node->safe_psql('postgres', q{SELECT actornot_resume('recorder', 'paused')});
wait_for_value($node, 'postgres', q{SELECT actornot_pending('recorder')},
	0, 'and so do posts');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM (SELECT entity, id FROM posted
		EXCEPT ALL SELECT entity, id FROM recorded) lost}),
	0, 'nothing is lost');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM (SELECT entity, id FROM recorded
		EXCEPT ALL SELECT entity, id FROM posted) extra}),
	0, 'nothing is done twice');
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/,
	'nothing crashed');
$node->stop;
done_testing();
