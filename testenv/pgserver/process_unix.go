//go:build unix

package pgserver

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// account is the user as whom root runs the server; nil is the user of this process.
type account struct{ uid, gid int }

func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.Atoi(u.Uid)
		gid, errGID := strconv.Atoi(u.Gid)
		if errUID == nil && errGID == nil && uid > 0 && gid >= 0 {
			return &account{uid: uid, gid: gid}, nil
		}
	}
	return nil, errors.New(
		"start PostgreSQL: it refuses to run as root, and there is no user postgres or nobody; add one, or run as another user",
	)
}

func (as *account) attributes() *syscall.SysProcAttr {
	attr := ownGroup()
	if as != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
	return attr
}

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killFamily kills a postmaster and its children, and returns when the children are gone. It freezes the postmaster
// first, which would otherwise keep forking and restart its children.
func killFamily(postmaster *os.Process) {
	_ = postmaster.Signal(syscall.SIGSTOP)
	until(time.Second, func() bool {
		p, ok := processes()[postmaster.Pid]
		return !ok || p.state == 'T' || p.state == 'Z'
	})
	var children []int
	for pid, p := range processes() {
		if p.parent == postmaster.Pid {
			children = append(children, pid)
		}
	}
	_ = postmaster.Kill()
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	until(20*time.Second, func() bool {
		left := processes()
		for _, pid := range children {
			if p, ok := left[pid]; ok && p.state != 'Z' {
				return false
			}
		}
		return true
	})
}

func until(limit time.Duration, reached func() bool) {
	for deadline := time.Now().Add(limit); !reached() && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond)
	}
}

// process is an entry of the process table. Its state is a letter of ps: T is stopped, Z is a zombie.
type process struct {
	parent int
	state  byte
}

// processes reads the process table, from /proc on Linux, which needs no program, and from ps elsewhere.
func processes() map[int]process {
	table := map[int]process{}
	if runtime.GOOS != "linux" {
		out, _ := exec.Command("ps", "-A", "-o", "pid=,ppid=,state=").Output()
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) == 3 {
				table[atoi(f[0])] = process{parent: atoi(f[1]), state: f[2][0]}
			}
		}
		return table
	}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has exited meanwhile
		}
		// pid (name) state ppid ...; the name may contain anything, even parentheses.
		line := string(text)
		if f := strings.Fields(line[strings.LastIndexByte(line, ')')+1:]); len(f) >= 2 {
			table[atoi(filepath.Base(filepath.Dir(file)))] = process{parent: atoi(f[1]), state: f[0][0]}
		}
	}
	return table
}

func atoi(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}
