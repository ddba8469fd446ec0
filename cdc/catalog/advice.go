package catalog

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// PlanAdvice is the remedy for a role that lacks the rights to attach.
func PlanAdvice(role string) string {
	return fmt.Sprintf(
		"let the owner of the tables or a superuser run the script that walhook plan --role %s prints (docs/how-to/roles.md), then attach again",
		shellWord(role),
	)
}

// shellWord quotes a word for a shell if it needs quotes.
func shellWord(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// uniqueAdvice says how to map a column that identifies a row. A unique index may reject rows that the application
// writes.
func uniqueAdvice(t *Table, key Variable) string {
	index := fmt.Sprintf("a unique index on %q would do as well, but forbids rows that share a value of it", key.Column)
	switch len(t.PrimaryKey) {
	case 0:
		return fmt.Sprintf("set %s to a column that identifies a row by itself; %s", key.Name, index)
	case 1:
		return fmt.Sprintf("set %s=%s, the primary key; %s", key.Name, t.PrimaryKey[0], index)
	}
	return fmt.Sprintf(
		"set %s to a column that identifies a row by itself; %s, which the primary key (%s) permits", key.Name, index,
		strings.Join(t.PrimaryKey, ", "),
	)
}

// identityAdvice says how to make the replica identity cover the key, without blocking the application. It is the number
// of the table among the partitions: names of indexes must differ.
func identityAdvice(identity *Identity, number int, key string) string {
	if statement, ok := identity.Covering(key); ok {
		return statement + ";"
	}
	index := "walhook_identity"
	if number > 0 {
		index += "_" + strconv.Itoa(number+1)
	}
	return fmt.Sprintf(
		"map a primary key column; or, if %[2]s is never NULL and no two rows share a value of it, which is then forbidden: "+
			"CREATE UNIQUE INDEX CONCURRENTLY %[3]s ON %[1]s (%[2]s); "+
			"ALTER TABLE %[1]s ADD CONSTRAINT %[3]s_set CHECK (%[2]s IS NOT NULL) NOT VALID; ALTER TABLE %[1]s VALIDATE CONSTRAINT %[3]s_set; "+
			"ALTER TABLE %[1]s ALTER COLUMN %[2]s SET NOT NULL; ALTER TABLE %[1]s REPLICA IDENTITY USING INDEX %[3]s;",
		identity.Table, pgx.Identifier{key}.Sanitize(), index,
	)
}

// fullIdentityAdvice says how to get long values into the WAL. With a column list, PostgreSQL would then refuse the
// application's updates.
func fullIdentityAdvice(t *Table, publish string) string {
	if publish == PublishMapped {
		return "compare another column"
	}
	var statements []string
	for _, identity := range t.Identities { // partitions do not inherit it
		statements = append(statements, fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", identity.Table))
	}
	return "compare another column, or " + strings.Join(statements, " ") + " but never with WALHOOK_PUBLISH=mapped"
}
