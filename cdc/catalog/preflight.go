package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"walhook/cdc"
	"walhook/cdc/condition"
	"walhook/sql"
)

// Target is the configuration to attach.
type Target struct {
	Slot, Publication, Publish string
	Mapping                    cdc.Mapping
}

// Preflight is the state of the source before an attach.
type Preflight struct {
	Findings   []Finding
	Version    int // server_version_num
	User       string
	Superuser  bool
	Respondent *Table
	Assessment *Table // nil if none is mapped or the mapped one does not exist
	Slot       *Slot

	PublicationSpec PublicationSpec
	Publication     *Publication

	misfit *MappingError // the first variable that does not fit the table
}

// MappingError reports a variable that does not fit the table: a column that does not exist, or a comparison that is
// impossible. That is a mistake in the configuration, as one in a condition's grammar is.
type MappingError struct {
	Variable string
	Mistake  *condition.Error // in the variable's value, which need not be a condition
}

func (e *MappingError) Error() string {
	return fmt.Sprintf("%s=%q is not accepted: %s", e.Variable, e.Mistake.Text, e.Mistake.Error())
}

// CheckMapping returns a *MappingError if a variable does not fit the table.
func (p *Preflight) CheckMapping() error {
	if p.misfit == nil {
		return nil
	}
	return p.misfit
}

func (p *Preflight) noteMisfit(variable string, mistake *condition.Error) {
	if p.misfit == nil {
		p.misfit = &MappingError{variable, mistake}
	}
}

// Refusals returns the findings that prevent an attach.
func (p *Preflight) Refusals() []Finding {
	return slices.DeleteFunc(slices.Clone(p.Findings), func(f Finding) bool { return f.Level != Fail })
}

func (p *Preflight) note(level Level, check, found, remedy string) {
	p.Findings = append(p.Findings, Finding{Check: check, Level: level, Found: found, Remedy: remedy})
}

// noteAbsent notes that the object that a variable names does not exist.
func (p *Preflight) noteAbsent(check, found, remedy string) {
	p.Findings = append(p.Findings, Finding{Check: check, Level: Fail, Found: found, Remedy: remedy, NotFound: true})
}

// noteRight notes that the connected role lacks a right.
func (p *Preflight) noteRight(check, found, remedy string) {
	p.Findings = append(p.Findings, Finding{Check: check, Level: Fail, Found: found, Remedy: remedy, Right: true})
}

// InspectSource checks the source and changes nothing. It only fails on connection errors; whatever prevents an
// attach is among the findings. It does not count the walsenders of the open replication connections.
func InspectSource(ctx context.Context, source *pgx.Conn, target Target, open ...*pgconn.PgConn) (*Preflight, error) {
	p := &Preflight{}
	if err := p.checkServer(ctx, source, target, open); err != nil {
		return nil, err
	}
	if err := p.checkTables(ctx, source, target); err != nil {
		return nil, err
	}
	if p.Respondent == nil || target.Mapping.HasAssessmentTable() && p.Assessment == nil {
		return p, nil
	}
	p.PublicationSpec = NewPublicationSpec(
		target.Publication, target.Slot, target.Publish, target.Mapping, p.Respondent, p.Assessment)
	return p, p.checkPublication(ctx, source)
}

// InspectTables is InspectSource for the mapped tables alone. It needs no rights but those to read them.
func InspectTables(ctx context.Context, source *pgx.Conn, target Target) (*Preflight, error) {
	p := &Preflight{}
	if err := source.QueryRow(ctx, "select current_user::text").Scan(&p.User); err != nil {
		return nil, fmt.Errorf("inspect the source: %w", err)
	}
	return p, p.checkTables(ctx, source, target)
}

// CheckMapping returns a *MappingError if a variable does not fit the tables.
func CheckMapping(ctx context.Context, source *pgx.Conn, target Target) error {
	p, err := InspectTables(ctx, source, target)
	if err != nil {
		return err
	}
	return p.CheckMapping()
}

func (p *Preflight) checkTables(ctx context.Context, source *pgx.Conn, target Target) (err error) {
	m := target.Mapping
	p.Respondent, err = p.checkTable(ctx, source, target.Publish,
		m.Respondent, "WALHOOK_RESPONDENT_TABLE", m.ID, RespondentVariables(m))
	if err != nil {
		return err
	}
	if m.HasAssessmentTable() {
		p.Assessment, err = p.checkTable(ctx, source, target.Publish,
			m.AssessmentTable, "WALHOOK_ASSESSMENT_TABLE", m.AssessmentID, AssessmentVariables(m))
		if err != nil {
			return err
		}
	}
	if p.Respondent == nil {
		return nil
	}
	p.checkStamp(m) // problems with the table are listed first
	return p.checkMarkers(ctx, source, m, target.Publish)
}

func (p *Preflight) checkServer(ctx context.Context, source *pgx.Conn, target Target, open []*pgconn.PgConn) error {
	own := make([]uint32, len(open))
	for i, conn := range open {
		own[i] = conn.PID()
	}
	var (
		walLevel                             string
		recovery, replication                bool
		slots, maxSlots, senders, maxSenders int
	)
	err := source.QueryRow(ctx, `
		select current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('wal_level'),
		       current_user::text,
		       r.rolsuper, r.rolreplication or exists (
		         select from pg_catalog.pg_roles m where m.rolname = any($1)
		            and pg_catalog.pg_has_role(current_user, m.oid, 'member')),
		       (select count(*) from pg_catalog.pg_replication_slots), current_setting('max_replication_slots')::int,
		       (select count(*) from pg_catalog.pg_stat_replication where pid <> all($2::int[])),
		       current_setting('max_wal_senders')::int
		  from pg_catalog.pg_roles r where r.rolname = current_user`, sql.CloudReplicators, own).
		Scan(&p.Version, &recovery, &walLevel, &p.User, &p.Superuser, &replication, &slots, &maxSlots, &senders, &maxSenders)
	if err != nil {
		return fmt.Errorf("inspect the source: %w", err)
	}
	if p.Slot, err = InspectSlot(ctx, source, target.Slot); err != nil {
		return err
	}
	grade := func(ok bool, check, found, remedy string) {
		if ok {
			p.note(OK, check, found, "")
			return
		}
		p.note(Fail, check, found, remedy)
	}
	grade(p.Version >= 140000, "server_version", fmt.Sprintf("the source is PostgreSQL %d", p.Version/10000),
		"walhook needs PostgreSQL 14 or later")
	grade(!recovery, "primary",
		map[bool]string{false: "the source is a primary", true: "the source is a standby"}[recovery],
		"let WALHOOK_DATABASE_URL name the primary: publications can only be created there")
	grade(walLevel == "logical", "wal_level", "wal_level is "+walLevel,
		"ALTER SYSTEM SET wal_level = 'logical'; then restart the server "+
			"(on managed services: the parameter for logical replication)")
	if p.Superuser || replication {
		p.note(OK, "replication_right", fmt.Sprintf("role %s may replicate", p.User), "")
	} else {
		p.noteRight("replication_right", fmt.Sprintf("role %s may not replicate", p.User),
			fmt.Sprintf("ALTER ROLE %s REPLICATION;", pgx.Identifier{p.User}.Sanitize()))
	}
	ours := 0
	if p.Slot.Exists {
		ours = 1
	}
	grade(slots-ours < maxSlots, "free_slots", fmt.Sprintf("%d of %d replication slots are taken", slots, maxSlots),
		"drop a slot that nobody uses, or raise max_replication_slots and restart the server")
	ours = 0
	if p.Slot.IsRead() {
		ours = 1
	}
	grade(senders-ours < maxSenders, "free_senders", fmt.Sprintf("%d of %d WAL senders are busy", senders, maxSenders),
		"raise max_wal_senders and restart the server")
	if target.Publish == PublishMapped {
		grade(p.Version >= columnListVersion, "publish", "WALHOOK_PUBLISH=mapped needs column lists",
			"they need PostgreSQL 15; use WALHOOK_PUBLISH=all")
	}
	return nil
}

// Variable is an environment variable and the column that it maps.
type Variable struct {
	Name, Column string

	absence    *condition.Error // the mistake if there is no such column
	expression bool             // the column is part of an expression
}

// columnVariable is a variable that names columns.
func columnVariable(name, column, value string) Variable {
	return Variable{Name: name, Column: column, absence: condition.MissingColumn(value, column)}
}

// RespondentVariables returns the variables that map columns of the respondent table.
func RespondentVariables(m cdc.Mapping) []Variable {
	variables := []Variable{
		columnVariable("WALHOOK_RESPONDENT_ID", m.ID, m.ID),
		columnVariable("WALHOOK_RESPONDENT_ASSESSMENT", m.Assessment, m.Assessment),
		columnVariable("WALHOOK_RESPONDENT_ORGANIZATION", m.Organization, m.Organization),
	}
	for _, marker := range m.Markers() {
		for _, column := range marker.Columns() {
			variables = append(variables, Variable{
				Name: marker.Variable, Column: column, absence: marker.Missing(column), expression: marker.Expression != "",
			})
		}
	}
	for _, column := range m.Stamp {
		variables = append(variables, columnVariable("WALHOOK_FINISH_STAMP", column, strings.Join(m.Stamp, ",")))
	}
	return variables
}

// AssessmentVariables returns the variables that map columns of the assessment table.
func AssessmentVariables(m cdc.Mapping) []Variable {
	return []Variable{
		columnVariable("WALHOOK_ASSESSMENT_ID", m.AssessmentID, m.AssessmentID),
		columnVariable("WALHOOK_ASSESSMENT_EXTERNAL_ID", m.ExternalID, m.ExternalID),
		columnVariable("WALHOOK_ASSESSMENT_COPIED_FROM", m.CopiedFrom, m.CopiedFrom),
		columnVariable("WALHOOK_ASSESSMENT_ORGANIZATION", m.AssessmentOrganization, m.AssessmentOrganization),
		columnVariable("WALHOOK_ASSESSMENT_NAME", m.AssessmentName, m.AssessmentName),
	}
}

func (p *Preflight) checkTable(
	ctx context.Context, source *pgx.Conn, publish string, name cdc.Name, variableName, id string, columns []Variable,
) (*Table, error) {
	t, err := InspectTable(ctx, source, name)
	if err != nil {
		return nil, err
	}
	shown := name.Display()
	if t == nil {
		p.noteAbsent("table", fmt.Sprintf("table %s does not exist", shown),
			fmt.Sprintf("set %s to schema.table exactly as the catalog spells it, with double quotes around a name that "+
				"contains a dot", variableName))
		return nil, nil
	}
	switch {
	case t.Kind == "v" || t.Kind == "m" || t.Kind == "f":
		kind := map[string]string{"v": "a view", "m": "a materialized view", "f": "a foreign table"}[t.Kind]
		p.note(Fail, "table", fmt.Sprintf("%s is %s, whose changes are not in the WAL", shown, kind),
			fmt.Sprintf("set %s to the table behind it", variableName))
		return nil, nil
	case t.Persistence != "p":
		kind := map[string]string{"u": "unlogged", "t": "temporary"}[t.Persistence]
		p.note(Fail, "table", fmt.Sprintf("%s is %s: its changes are not in the WAL", shown, kind),
			fmt.Sprintf("ALTER TABLE %s SET LOGGED;", name.String()))
		return nil, nil
	case t.Inherited:
		p.note(Fail, "table",
			fmt.Sprintf("other tables inherit from %s: their rows are seen in it, but each is published as a table of its own",
				shown),
			"ALTER TABLE ... NO INHERIT for each of them, or make it a partitioned table")
		return nil, nil
	case name.Schema == "walhook" || name.Schema == "information_schema" || strings.HasPrefix(name.Schema, "pg_"):
		p.note(Fail, "table", fmt.Sprintf("%s is in a schema of walhook or of the system", shown),
			fmt.Sprintf("set %s to a table of the application", variableName))
		return nil, nil
	}
	if err := t.measure(ctx, source); err != nil {
		return nil, err
	}
	p.note(OK, "table", fmt.Sprintf("table %s, %s, %s", shown, FormatRows(t.Rows), t.Size()), "")

	if !p.checkColumns(t, columns) {
		return nil, nil
	}
	if err := p.checkSelect(ctx, source, t, columns); err != nil {
		return nil, err
	}
	p.checkIdentity(t, columns[0], publish)
	if t.RowSecurity {
		p.noteRight("row_security",
			fmt.Sprintf("row-level security hides rows of %s from this role, so its snapshot would be incomplete", shown),
			rowSecurityRemedy(p.User))
	}
	return t, nil
}

// checkColumns reports whether the table has all mapped columns, and none of them is generated.
func (p *Preflight) checkColumns(t *Table, columns []Variable) (complete bool) {
	shown := t.Name.Display()
	complete = true
	for _, v := range columns {
		if v.Column == "" {
			continue
		}
		if _, exists := t.Columns[v.Column]; !exists {
			complete = false
			found := fmt.Sprintf("table %s has no column %q", shown, v.Column)
			remedy := fmt.Sprintf("set %s to one of its columns", v.Name)
			if v.expression {
				found, remedy = fmt.Sprintf("%s, at %s", found, v.absence.Near()), "correct "+v.Name
			}
			v.absence.Reason += " in " + shown
			if close := closest(v.Column, t.Columns); close != "" {
				suggestion := fmt.Sprintf("; did you mean %q?", close)
				found, v.absence.Reason = found+suggestion, v.absence.Reason+suggestion
				if !v.expression {
					remedy = fmt.Sprintf("set %s to the column's name", v.Name)
				}
			} else {
				v.absence.Reason += "; it has " + strings.Join(slices.Sorted(maps.Keys(t.Columns)), ", ")
			}
			p.noteMisfit(v.Name, v.absence)
			p.noteAbsent("columns", found, remedy)
		}
		if t.Generated[v.Column] {
			complete = false
			p.note(Fail, "columns",
				fmt.Sprintf("column %q of %s is generated, and generated columns are not in the stream", v.Column, shown),
				fmt.Sprintf("set %s to a column that it is generated from, or to a plain one that a trigger of the "+
					"application fills", v.Name))
		}
	}
	return complete
}

// checkSelect checks that the role may read the mapped columns, which the snapshot needs.
func (p *Preflight) checkSelect(ctx context.Context, source *pgx.Conn, t *Table, columns []Variable) error {
	var lacking, quoted []string
	for _, v := range columns {
		if v.Column == "" {
			continue
		}
		var may bool
		err := source.QueryRow(ctx, `select has_schema_privilege(n.oid, 'usage') and has_column_privilege(c.oid, $2, 'select')
			from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1`,
			t.OID, v.Column).Scan(&may)
		if err != nil {
			return fmt.Errorf("look up the rights on %s: %w", t.Name.Display(), err)
		}
		if !may && !slices.Contains(lacking, v.Column) {
			lacking = append(lacking, v.Column)
			quoted = append(quoted, pgx.Identifier{v.Column}.Sanitize())
		}
	}
	if len(lacking) > 0 {
		p.noteRight(
			"select_right",
			fmt.Sprintf("this role may not read %s of %s", strings.Join(lacking, ", "), t.Name.Display()),
			fmt.Sprintf("GRANT USAGE ON SCHEMA %[1]s TO %[4]s; GRANT SELECT (%[2]s) ON %[3]s TO %[4]s;",
				pgx.Identifier{t.Name.Schema}.Sanitize(), strings.Join(quoted, ", "), t.Name.String(),
				pgx.Identifier{p.User}.Sanitize()),
		)
		return nil
	}
	p.note(OK, "select_right", fmt.Sprintf("this role may read the mapped columns of %s", t.Name.Display()), "")
	return nil
}

// checkIdentity refuses a table whose updates and deletes would fail once it is published, or would not identify the
// row.
func (p *Preflight) checkIdentity(t *Table, key Variable, publish string) {
	shown, id := t.Name.Display(), key.Column
	unique := slices.ContainsFunc(t.Uniques, func(columns []string) bool { return len(columns) == 1 && columns[0] == id })
	deferrable := !unique && t.ImmediateSQL != "" && slices.Contains(t.PrimaryKey, id)
	if deferrable {
		p.note(Fail, "primary_key",
			fmt.Sprintf("the primary key of %s is deferrable: rows may share a key within a transaction, "+
				"so changed keys could not be followed", shown),
			t.ImmediateSQL)
	} else if !unique && !(t.Partitioned() && slices.Contains(t.PrimaryKey, id)) {
		p.note(Fail, "primary_key",
			fmt.Sprintf("column %q of %s is not a primary key, so it does not identify a row", id, shown),
			uniqueAdvice(t, key))
	}
	ok := true
	for i, identity := range t.Identities {
		refuse := func(why, remedy string) {
			ok = false
			p.note(Fail, "replica_identity", fmt.Sprintf("table %s %s", identity.Table, why), remedy)
		}
		if !identity.Logged {
			refuse("is unlogged: its changes are not in the WAL", identity.LogSQL())
		}
		switch {
		case identity.Setting == "n":
			refuse(
				"has REPLICA IDENTITY NOTHING: "+
					"PostgreSQL would refuse the application's updates and deletes once it is published",
				identityAdvice(&identity, i, id),
			)
		case len(identity.Columns) == 0 && deferrable:
			refuse(
				"has a deferrable primary key, which is no replica identity: "+
					"PostgreSQL would refuse the application's updates and deletes once it is published",
				t.ImmediateSQL,
			)
		case len(identity.Columns) == 0:
			refuse(
				"has no primary key to serve as replica identity: "+
					"PostgreSQL would refuse the application's updates and deletes once it is published",
				identityAdvice(&identity, i, id),
			)
		case !slices.Contains(identity.Columns, id):
			refuse(fmt.Sprintf("has a replica identity (%s) that lacks %s: deletes and changed keys could not be followed",
				strings.Join(identity.Columns, ", "), id),
				identityAdvice(&identity, i, id))
		case identity.Setting == "f" && publish == PublishMapped:
			refuse(
				"has REPLICA IDENTITY FULL: "+
					"PostgreSQL would refuse the application's updates when only some columns are published",
				identityAdvice(&identity, i, id)+" or use WALHOOK_PUBLISH=all",
			)
		}
	}
	if ok && len(t.Identities) > 0 {
		p.note(OK, "replica_identity", fmt.Sprintf("table %s has a replica identity that covers %s", shown, id), "")
	}
}

// checkMarkers refuses comparisons that the columns' types do not allow, and warns of values that no row can have.
func (p *Preflight) checkMarkers(ctx context.Context, source *pgx.Conn, m cdc.Mapping, publish string) error {
	shown := p.Respondent.Name.Display()
	defaults, err := readDefaults(ctx, source, p.Respondent)
	if err != nil {
		return err
	}
	for _, marker := range m.Markers() {
		if marker.IsZero() {
			continue
		}
		bound, err := marker.Bind(p.Respondent.Types)
		var mistake *condition.Error
		if errors.As(err, &mistake) {
			p.noteMisfit(marker.Variable, mistake)
			p.note(Fail, "condition",
				fmt.Sprintf("%s cannot be evaluated on %s, at %s: %s",
					marker.Variable, shown, mistake.Near(), mistake.Reason),
				fmt.Sprintf("correct %s", marker.Variable))
			continue
		}
		if marker.Expression != "" {
			p.note(OK, "condition", fmt.Sprintf("%s can be evaluated on %s", marker.Variable, shown), "")
		}
		if long := bound.Omittable(); len(long) > 0 {
			p.note(Warn, "condition_values", fmt.Sprintf(
				"%s compares several columns, and PostgreSQL omits a long value of %s from the WAL of an update that does not "+
					"change it: if the outcome depends on such a value, it stays as it was",
				marker.Variable, strings.Join(long, ", ")),
				fullIdentityAdvice(p.Respondent, publish))
		}
		if err := p.checkDefault(marker, bound, defaults); err != nil {
			return err
		}
		if len(marker.Values) == 0 {
			continue
		}
		p.checkLists(marker)
		if err := p.checkValues(ctx, source, marker); err != nil {
			return err
		}
	}
	return nil
}

// checkValues warns of values that the column's type or a CHECK constraint does not allow. Most are typos.
func (p *Preflight) checkValues(ctx context.Context, source *pgx.Conn, marker cdc.MappedMarker) error {
	shown := p.Respondent.Name.Display()
	checks, err := readValueChecks(ctx, source, p.Respondent, marker.Column)
	if err != nil {
		return err
	}
	for _, v := range marker.Values {
		if forbids := checks.forbidding(v); forbids != "" {
			p.note(Warn, "marker_values",
				fmt.Sprintf("%s names %q, which %s of column %q of %s forbids", marker.Variable, v, forbids, marker.Column, shown),
				"name a value that it allows")
		}
	}
	values, err := possibleValues(ctx, source, p.Respondent.Columns[marker.Column])
	if err != nil {
		return fmt.Errorf("look up the values of column %q: %w", marker.Column, err)
	}
	for _, v := range marker.Values {
		if len(values) > 0 && !slices.Contains(values, v) {
			p.note(Warn, "marker_values",
				fmt.Sprintf("%s names %q, which column %q of %s cannot hold", marker.Variable, v, marker.Column, shown),
				fmt.Sprintf("name values of it: %s", strings.Join(values, ", ")))
		}
	}
	return nil
}

// possibleValues lists all values of a boolean or enum type as text, and nothing for other types.
func possibleValues(ctx context.Context, source *pgx.Conn, typeOID uint32) ([]string, error) {
	if typeOID == pgtype.BoolOID {
		return []string{"true", "false", "t", "f"}, nil
	}
	rows, err := source.Query(ctx,
		"select enumlabel::text from pg_catalog.pg_enum where enumtypid = $1 order by enumsortorder", typeOID)
	return CollectStrings(rows, err)
}

func (p *Preflight) checkStamp(m cdc.Mapping) {
	if why, remedy, _ := StampHazard(m, p.Respondent); why != "" {
		p.note(Warn, "finish_stamp", why, remedy)
		return
	}
	p.note(OK, "finish_stamp",
		fmt.Sprintf("a further finish is recognised by a new value of %s", strings.Join(m.StampColumns(), " or ")), "")
}

func (p *Preflight) checkPublication(ctx context.Context, source *pgx.Conn) error {
	var err error
	if p.Publication, err = InspectPublication(ctx, source, p.PublicationSpec.Name); err != nil {
		return err
	}
	drift := p.PublicationSpec.Drift(p.Publication)
	if len(drift) == 0 {
		p.note(OK, "publication", fmt.Sprintf("publication %q publishes the mapped tables", p.PublicationSpec.Name), "")
		return nil
	}
	var mayCreate bool
	if err := source.QueryRow(ctx, "select has_database_privilege(current_database(), 'create')").Scan(&mayCreate); err != nil {
		return fmt.Errorf("look up the rights on the database: %w", err)
	}
	byHand := "let the owner run: " + strings.Join(p.PublicationSpec.RepairSQL(p.Publication), "; ") + ";"
	if p.Publication == nil {
		byHand += fmt.Sprintf(
			" (walhook plan --role %s prints this and everything else that the role lacks: docs/how-to/roles.md)",
			shellWord(p.User),
		)
	}
	var refusals []string
	if p.Publication != nil {
		p.note(Warn, "publication", strings.Join(drift, "; "),
			"walhook attach repairs it, as its owner, if walhook created it")
	} else if mayCreate {
		p.note(OK, "publication",
			fmt.Sprintf("publication %q does not exist, and can be created", p.PublicationSpec.Name), "")
	} else {
		refusals = append(refusals, "the publication does not exist, and this role may not create one in this database")
	}
	for _, table := range p.PublicationSpec.tables {
		if !table.info.IsOwner {
			refusals = append(refusals,
				fmt.Sprintf("this role does not own %s, so it cannot publish it", table.info.Name.Display()))
		}
	}
	if len(refusals) > 0 {
		p.noteRight("publication", strings.Join(refusals, "; "), byHand)
	}
	return nil
}

// closest returns the column whose name is most similar to name, ignoring case, blanks and underscores.
func closest(name string, columns map[string]uint32) string {
	fold := func(s string) string {
		return strings.NewReplacer("_", "", " ", "", "-", "").Replace(strings.ToLower(s))
	}
	folded := map[string]string{}
	for _, column := range slices.Sorted(maps.Keys(columns)) {
		folded[fold(column)] = column
	}
	return folded[cdc.Nearest(fold(name), slices.Collect(maps.Keys(folded)))]
}
