/*
 * exported.h
 *	  Is a snapshot of this database exported?
 */
#ifndef ACT_EXPORTED_H
#define ACT_EXPORTED_H

extern bool act_exported_exists(void);

#endif							/* ACT_EXPORTED_H */
