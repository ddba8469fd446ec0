// Package documents runs what the documents say, and holds generated pages and examples to the program.
package documents
