/*
 * token.h
 *	  Tokens of leases: numbers that only grow, whatever happens.
 */
#ifndef ACT_TOKEN_H
#define ACT_TOKEN_H

/* The next token of an entity whose last one was "previous" (0: none). */
extern int64 act_token_next(int64 previous, int32 least_timeline);

extern int32 act_token_timeline(int64 token);

/* To be called once, before tokens are given out. */
extern void act_token_flush(void);

#endif							/* ACT_TOKEN_H */
