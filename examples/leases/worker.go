// worker.go - books, by leases.  Run any number; kill them when you like.
package main

import (
	"database/sql"
	"encoding/json"
	_ "github.com/lib/pq"
	"log"
)

const (
	lease   = "SELECT entity, token, coalesce((state->>'total')::bigint, 0), messages FROM "
	acquire = lease + "actornot_acquire('booking', wait => '5 s')"
	update  = `WITH b AS (INSERT INTO ledger SELECT id, $1, (payload->'delta')::bigint
			FROM jsonb_to_recordset($3) AS m (id bigint, payload jsonb)) ` +
		lease + "actornot_update_locked('booking', $1, $2, jsonb_build_object('total', $4::bigint))"
)

func main() {
	db, err := sql.Open("postgres", "") // PGHOST and so on say where
	for query, args := acquire, []any(nil); err == nil || err == sql.ErrNoRows; {
		var entity, messages string
		var token, total int64
		var list []struct{ Payload struct{ Delta int64 } }
		err = db.QueryRow(query, args...).Scan(&entity, &token, &total, &messages)
		query, args = acquire, nil
		if err != nil { // sql.ErrNoRows: nothing waits
			continue
		}
		if wrong := json.Unmarshal([]byte(messages), &list); wrong != nil {
			_, err = db.Exec("SELECT actornot_fail('booking', $1, $2, $3)", entity, token, wrong.Error())
			continue
		}
		for _, m := range list {
			total += m.Payload.Delta
		}
		query, args = update, []any{entity, token, messages, total}
	}
	log.Fatal(err) // 55AN1, or no server: the supervisor starts another one
}
