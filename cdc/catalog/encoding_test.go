package catalog

import (
	"testing"
	"unicode/utf8"

	"walhook/testenv"
)

// Text in every encoding that the server can convert is converted as the server does.
func TestTextOfEveryEncoding(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t, testenv.Postgres(t), "")
	for encoding, texts := range map[string][]string{
		"EUC_JP": {"回答 ab 終了", "\u00a9ﾃ"}, "EUC_JIS_2004": {"回答 ab 終了", "か゚"}, "EUC_CN": {"完成 ab 答"}, "EUC_KR": {"완료 ab"}, "EUC_TW": {"完成 ab", "乂"},
		"LATIN1": {"réponse ÿ"}, "LATIN2": {"odpověď"}, "LATIN9": {"réponse €"}, "ISO_8859_5": {"ответ"}, "WIN1251": {"ответ №"}, "WIN1252": {"réponse €"},
		"WIN866": {"ответ"}, "KOI8R": {"ответ"}, "WIN874": {"คำตอบ"},
	} {
		text := newSourceText(t.Context(), url, encoding)
		for _, want := range texts {
			raw := testenv.Value[[]byte](t, url, "select convert_to($1, $2)", want, encoding)
			if got, err := text.Decode(string(raw)); err != nil || got != want {
				t.Errorf("%s: %x is %q and not %q, %v", encoding, raw, got, want, err)
			}
			if got, err := text.Encode(want); err != nil || got != string(raw) {
				t.Errorf("%s: %q is %x and not %x, %v", encoding, want, got, raw, err)
			}
		}
		text.Close()
	}
}

// Text that the server cannot convert becomes invalid UTF-8, even if its bytes happen to be valid.
func TestTextThatCannotBeConverted(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t, testenv.Postgres(t), "")
	for encoding, raw := range map[string]string{"EUC_JP": "a\xa9\xa1", "EUC_KR": "a\xc2", "WIN1252": "\xc2\x81", "ISO_8859_7": "\xae"} {
		text := newSourceText(t.Context(), url, encoding)
		if got, err := text.Decode(raw); err != nil || utf8.ValidString(got) {
			t.Errorf("%s: %x is %q, %v", encoding, raw, got, err)
		}
		text.Close()
	}
	for _, encoding := range []string{"UTF8", "SQL_ASCII"} {
		if got, err := newSourceText(t.Context(), url, encoding).Decode("\xff"); err != nil || got != "\xff" {
			t.Errorf("%s: %q, %v", encoding, got, err)
		}
	}
}
