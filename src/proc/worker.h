/*
 * worker.h
 *	  The background worker that runs the entities of one owner role.
 */
#ifndef ACT_WORKER_H
#define ACT_WORKER_H

extern void act_worker_define_settings(void);

#endif							/* ACT_WORKER_H */
