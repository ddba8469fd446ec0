// Package documents runs the commands in the documents, and compares generated pages and examples with the program.
package documents
