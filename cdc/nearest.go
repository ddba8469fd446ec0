package cdc

// maxEdits is the largest edit distance at which a candidate is still suggested.
const maxEdits = 3

// Nearest returns the candidate with the smallest edit distance to name, or "" if none is close: at most three edits,
// and at most a third of the name.
func Nearest(name string, candidates []string) string {
	best, distance := "", min(maxEdits, (len(name)+2)/3)+1
	for _, candidate := range candidates {
		if d := levenshtein(name, candidate); d < distance || d == distance && best != "" && candidate < best {
			best, distance = candidate, d
		}
	}
	return best
}

// levenshtein returns the Levenshtein distance between a and b.
func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
