//go:build !unix

package pgserver

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

type account struct{ uid, gid int }

func serverAccount() (*account, error) {
	return nil, fmt.Errorf("start PostgreSQL: temporary servers need Unix, and this is %s", runtime.GOOS)
}

func (*account) attributes() *syscall.SysProcAttr { return nil }

func ownGroup() *syscall.SysProcAttr { return nil }

func killFamily(postmaster *os.Process) { _ = postmaster.Kill() }
