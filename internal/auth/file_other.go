//go:build !unix

package auth

import (
	"io/fs"
	"os"
)

func openPlain(path string) (*os.File, error) { return os.Open(path) }

// exposed knows nothing of this system's access lists; the directory must protect the file.
func exposed(info fs.FileInfo) string {
	if !info.Mode().IsRegular() {
		return "is not a plain file"
	}
	return ""
}
