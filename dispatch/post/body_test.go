package post

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"walhook/cdc"
)

func TestBodyIsExactlyAsPromised(t *testing.T) {
	t.Parallel()
	at := time.Unix(1773859449, 999_999_999)
	tests := []struct {
		name    string
		event   cdc.EventType
		id      string
		numeric bool
		want    string
	}{
		{"created", cdc.Created, "1112057", true, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":1112057}}`},
		{"started", cdc.Started, "1112057", true, `{"EventType":"response.started","Timestamp":1773859449,"Data":{"ResponseId":1112057}}`},
		{"completed", cdc.Completed, "1112057", true, `{"EventType":"response.completed","Timestamp":1773859449,"Data":{"ResponseId":1112057}}`},
		{"changed", cdc.Changed, "1112057", true, `{"EventType":"response.changed","Timestamp":1773859449,"Data":{"ResponseId":1112057}}`},
		{"uuid", cdc.Created, "0190d1a2-7b7a-7c3e-9f57-6c1f0a4f2b11", false, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":"0190d1a2-7b7a-7c3e-9f57-6c1f0a4f2b11"}}`},
		{"digits of a text column", cdc.Created, "0017", false, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":"0017"}}`},
		{"beyond 2^53", cdc.Created, "9223372036854775807", true, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":9223372036854775807}}`},
		{"negative", cdc.Created, "-9223372036854775808", true, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":-9223372036854775808}}`},
		{"zero", cdc.Created, "0", true, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":0}}`},
		{"not an integer after all", cdc.Created, "1.5", true, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":"1.5"}}`},
		{"not a JSON number", cdc.Created, "007", true, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":"007"}}`},
		{"empty", cdc.Created, "", true, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":""}}`},
		{"quotes and HTML", cdc.Created, `a"b\c<&>é`, false, `{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":"a\"b\\c<&>é"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := string(AppendBody(nil, tt.event.String(), at, tt.id, tt.numeric)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestBodyReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		numeric := rapid.Bool().Draw(t, "numeric")
		var id string
		if numeric {
			id = rapid.StringMatching(`-?(0|[1-9][0-9]{0,30})`).Draw(t, "id")
		} else {
			id = rapid.String().Draw(t, "id")
		}
		at := time.Unix(rapid.Int64Range(0, 1<<40).Draw(t, "at"), 0)
		body := AppendBody([]byte("kept"), "response.changed", at, id, numeric)
		if string(body[:4]) != "kept" {
			t.Fatalf("what was in the slice is gone: %s", body)
		}
		var got struct {
			EventType string
			Timestamp int64
			Data      struct{ ResponseId json.RawMessage }
		}
		if err := json.Unmarshal(body[4:], &got); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if got.EventType != "response.changed" || got.Timestamp != at.Unix() {
			t.Fatalf("read back %+v from %s", got, body)
		}
		if numeric {
			if string(got.Data.ResponseId) != id {
				t.Fatalf("id %s became %s", id, got.Data.ResponseId)
			}
			return
		}
		var text string
		if err := json.Unmarshal(got.Data.ResponseId, &text); err != nil || text != id {
			t.Fatalf("id %q became %q (%v)", id, text, err)
		}
	})
}

func BenchmarkAppendBody(b *testing.B) {
	b.ReportAllocs()
	at := time.Unix(1773859449, 0)
	var buf []byte
	for b.Loop() {
		buf = AppendBody(buf[:0], "response.completed", at, "1112057", true)
	}
}
