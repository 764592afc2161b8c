/*
 * exported.c
 *	  Is a snapshot of this database exported, as that of pg_dump -j is?
 *
 * The server tells nobody who asks, but keeps each in a file (see
 * ExportSnapshot in snapmgr.c), which is gone with its transaction.  What
 * cannot be read counts as one.
 *
 * No locks: one may be exported while we look.  Memory: the current context.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/fd.h"

#include "actornot.h"
#include "log/exported.h"

/* Where the server keeps exported snapshots. */
#define EXPORTED_SNAPSHOTS "pg_snapshots"

/*
 * Is there one of this database?
 */
bool
act_exported_exists(void)
{
	char	   *ours = psprintf("dbid:%u\n", MyDatabaseId);
	DIR		   *dir = AllocateDir(EXPORTED_SNAPSHOTS);
	struct dirent *entry;
	bool		found = false;

	while (!found &&
		   (entry = ReadDirExtended(dir, EXPORTED_SNAPSHOTS, LOG)) != NULL)
	{
		char		path[MAXPGPATH];
		char		head[256];
		FILE	   *file;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), EXPORTED_SNAPSHOTS "/%s", entry->d_name);
		file = AllocateFile(path, "r");
		/* One that is being written, or that was renamed since, counts. */
		if (file == NULL)
		{
			found = true;
			continue;
		}
		head[fread(head, 1, sizeof(head) - 1, file)] = '\0';
		found = strstr(head, "dbid:") == NULL || strstr(head, ours) != NULL;
		FreeFile(file);
	}
	FreeDir(dir);
	return found;
}
