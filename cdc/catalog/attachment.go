package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"walhook/cdc"
	"walhook/sql"
)

// Attachment is the store's record of the source that it is attached to. The tags are its columns; columns that an
// older store lacks are zero.
type Attachment struct {
	Phase              string       `json:"phase"`
	SystemIdentifier   string       `json:"system_identifier"`
	Database           string       `json:"database"`
	DatabaseOID        uint32       `json:"database_oid"` // 0: unknown
	Slot               string       `json:"slot"`
	NextSlot           string       `json:"next_slot"` // created by an adoption that has not completed
	Publication        string       `json:"publication"`
	PublicationCreated *bool        `json:"publication_created"` // false: it existed before; nil: an older version did not record it
	Publish            string       `json:"publish"`
	Mapping            cdc.Mapping  `json:"mapping"`
	RespondentOID      uint32       `json:"respondent_oid"`
	AssessmentOID      uint32       `json:"assessment_oid"`   // 0: no assessment table
	PublicationRows    string       `json:"publication_rows"` // Publication.CatalogRows, see HasPublicationRows
	Types              ColumnTypes  `json:"column_types"`     // of the mapped columns, as the recorded state was encoded; nil: unknown
	StampKey           cdc.StampKey `json:"stamp_key"`
	NumericID          bool         `json:"numeric_id"` // the respondent's key is an integer and appears as a JSON number
	BegunAt            time.Time    `json:"begun_at"`
	AttachedAt         *time.Time   `json:"attached_at"`
}

// Complete reports whether attach has completed. It is false while an attach is in progress or was interrupted.
func (a *Attachment) Complete() bool { return a != nil && a.Phase == "attached" }

// Place returns the recorded location of the application's database.
func (a *Attachment) Place() Place {
	return Place{System: a.SystemIdentifier, Database: a.Database, OID: a.DatabaseOID}
}

// ReadAttachment returns the store's attachment, or nil if there is none.
func ReadAttachment(ctx context.Context, store *pgx.Conn) (*Attachment, error) {
	var row []byte
	err := store.QueryRow(ctx, sql.ReadAttachment.SQL).Scan(&row)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the attachment from the store: %w", err)
	}
	a := &Attachment{}
	if err := json.Unmarshal(row, a); err != nil {
		return nil, fmt.Errorf("read the attachment from the store: %w", err)
	}
	return a, nil
}

// ReadPosition returns how far the stream has been consumed, and the fencing token of that write
// (walhook.position.turn).
func ReadPosition(ctx context.Context, store *pgx.Conn) (p cdc.Position, fence int64, err error) {
	var lsn, partial pgtype.Uint64
	if err := store.QueryRow(ctx, sql.ReadPosition.SQL).Scan(&fence, &lsn, &partial, &p.PartialChanges); err != nil {
		return p, 0, fmt.Errorf("read the position from the store: %w", err)
	}
	p.LSN, p.Partial = pglogrepl.LSN(lsn.Uint64), pglogrepl.LSN(partial.Uint64)
	return p, fence, nil
}

// ReadAttached returns the complete attachment and its position, or a *FatalError that says what to do first.
func ReadAttached(ctx context.Context, store *pgx.Conn) (*Attachment, cdc.Position, error) {
	a, err := ReadAttachment(ctx, store)
	if err != nil {
		return nil, cdc.Position{}, err
	}
	if err := a.CheckComplete(); err != nil {
		return nil, cdc.Position{}, err
	}
	position, _, err := ReadPosition(ctx, store)
	return a, position, err
}

// CheckComplete returns a *FatalError unless attach has completed.
func (a *Attachment) CheckComplete() error {
	switch {
	case a == nil:
		return cdc.Fatalf("nothing is attached yet; run `walhook attach` first, or set WALHOOK_AUTO_ATTACH=true")
	case !a.Complete():
		return cdc.Fatalf("an attach was interrupted; run `walhook attach` again, it starts over by itself")
	}
	return nil
}

// RecordOrigin gives the webhook-ids of deliveries queued from here on a new origin, in the store's current
// transaction and after it. The stream of a new slot may repeat log sequence numbers.
func RecordOrigin(ctx context.Context, store *pgx.Conn) error {
	if _, err := store.Exec(ctx, sql.RecordOrigin.SQL); err != nil {
		return fmt.Errorf("record the origin of deliveries: %w", err)
	}
	return nil
}

// Check returns a *FatalError unless attach has completed with this configuration.
func (a *Attachment) Check(target Target) error {
	if err := a.CheckComplete(); err != nil {
		return err
	}
	return a.CheckTarget(target)
}

// HasPublicationRows reports whether the publication's catalog rows are those that are recorded. A move to another
// mapping records the rows that it is about to create, in a line of their own.
func (a *Attachment) HasPublicationRows(rows string) bool {
	return slices.Contains(strings.Split(a.PublicationRows, "\n"), rows)
}

// CheckTarget returns a *FatalError that shows the differences from the attached configuration, and the remedy.
func (a *Attachment) CheckTarget(target Target) error {
	found, remedy := a.CompareTarget(target)
	if found == "" {
		return nil
	}
	return cdc.Fatalf("%s\n%s", found, remedy)
}

// CompareTarget describes the differences from the attached configuration, "" if there are none. The publication may
// publish fewer columns than the configuration allows, but not more.
func (a *Attachment) CompareTarget(target Target) (found, remedy string) {
	differs := a.differences(target)
	if len(differs) == 0 {
		return "", ""
	}
	remedy = "set it back, or run `walhook attach --remap` to move to it (docs/how-to/change.md)"
	if fixedVariable(differs) != "" {
		remedy = "set it back, or set WALHOOK_STORE_URL to another database for another installation, " +
			"or run `walhook detach` with what was attached and then `walhook attach` (docs/how-to/change.md)"
	}
	return "the configuration is not the one that was attached:\n" + DifferenceTable(differs), remedy
}

// CheckRemap returns the differences from the attached configuration, or an error if the attachment cannot move to it.
func (a *Attachment) CheckRemap(target Target) ([]cdc.Difference, error) {
	differs := a.differences(target)
	if fixed := fixedVariable(differs); fixed != "" {
		return nil, fmt.Errorf("an attachment cannot move to another %s:\n%s\nset it back, or run `walhook detach` with what was attached and then "+
			"`walhook attach`; nothing was changed", fixed, DifferenceTable(differs))
	}
	return differs, nil
}

// fixedVariable returns the first variable that a move to another mapping cannot change, or "".
func fixedVariable(differs []cdc.Difference) string {
	for _, d := range differs {
		switch d.Variable {
		case "WALHOOK_SLOT", "WALHOOK_PUBLICATION", "WALHOOK_PUBLISH", "WALHOOK_RESPONDENT_TABLE", "WALHOOK_RESPONDENT_ID":
			return d.Variable
		}
	}
	return ""
}

func (a *Attachment) differences(target Target) []cdc.Difference {
	var differs []cdc.Difference
	if a.Slot != target.Slot {
		differs = append(differs, cdc.Difference{Variable: "WALHOOK_SLOT", Before: a.Slot, After: target.Slot})
	}
	if a.Publication != target.Publication {
		differs = append(differs, cdc.Difference{Variable: "WALHOOK_PUBLICATION", Before: a.Publication, After: target.Publication})
	}
	if a.Publish == PublishAll && target.Publish == PublishMapped {
		differs = append(differs, cdc.Difference{Variable: "WALHOOK_PUBLISH", Before: a.Publish, After: target.Publish})
	}
	return append(differs, cdc.Diff(a.Mapping, target.Mapping)...)
}

// DifferenceTable formats differences as a table, one to a line.
func DifferenceTable(differs []cdc.Difference) string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  variable\tattached\tnow")
	for _, d := range differs {
		fmt.Fprintf(table, "  %s\t%q\t%q\n", d.Variable, d.Before, d.After)
	}
	_ = table.Flush() // a strings.Builder accepts everything
	return strings.TrimRight(b.String(), "\n")
}

// ReadAttachmentIfInstalled returns the attachment, or nil if the store's schema is not installed yet.
func ReadAttachmentIfInstalled(ctx context.Context, store *pgx.Conn) (*Attachment, error) {
	version, err := sql.Version(ctx, store)
	if err != nil || version == 0 {
		return nil, err
	}
	return ReadAttachment(ctx, store)
}
