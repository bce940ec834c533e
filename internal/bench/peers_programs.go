package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errMissing means that a program is not installed.
var errMissing = errors.New("is not in PATH")

// A program is one that is installed on this machine.
type program struct {
	path    string
	version string
}

// lookProgram finds a program, and asks it for its version.
func lookProgram(name string) (program, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return program{}, fmt.Errorf("%s %w", name, errMissing)
	}
	flag := map[string]string{"varnishd": "-V"}[name]
	if flag == "" {
		flag = "-v"
	}
	said, _ := exec.Command(path, flag).CombinedOutput() // wrk ends with 1
	version, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n")
	return program{path, version}, nil
}

// output runs the program to its end.
func (p program) output(ctx context.Context, arguments ...string) (string, error) {
	said, err := exec.CommandContext(ctx, p.path, arguments...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", p.path, err, said)
	}
	return string(said), nil
}

// start starts the program. It is told to end when ctx does, by close, or when this process ends.
func (p program) start(ctx context.Context, arguments ...string) (pid int, stop func() error, err error) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithCancel(ctx)
	command := exec.CommandContext(ctx, p.path, arguments...)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = patience
	command.SysProcAttr = endsWithParent()
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// On Linux the process is told when the thread that started it ends, so that thread stays ours.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			ended <- command.Wait()
		}
	}()
	if err := <-started; err != nil {
		cancel()
		return 0, nil, err
	}
	return command.Process.Pid, sync.OnceValue(func() error {
		select {
		case err := <-ended: // by itself
			cancel()
			return fmt.Errorf("%s has ended: %w: %s", p.path, err, &said)
		default:
		}
		cancel()
		<-ended
		return nil
	}), nil
}

// Without sendfile nginx needs a quarter less of a processor for a page that is as small, because fields and body leave in one
// call.
const nginxConfiguration = `worker_processes 1;
daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log crit;
%[4]sevents { worker_connections 1024; }
http {
  access_log off;
  server_tokens off;
  sendfile off;
  keepalive_requests 1000000000;
  open_file_cache max=1000 inactive=1h;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  proxy_cache_path %[1]s/cache keys_zone=pages:10m inactive=1h use_temp_path=off;
  server {
    listen %[2]s;
    location / {
      proxy_pass http://%[3]s;
      proxy_cache pages;
      proxy_cache_valid 200 1h;
      add_header Cache-Status "nginx; hit";
    }
  }
}
`

// startNginx starts one before the origin: one worker, the cache in memory, no access log.
func startNginx(ctx context.Context, origin string) (*peer, error) {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n" // or the worker may not use the directory
	}
	return startPeer(ctx, "nginx", func(directory, addr string) ([]string, string, error) {
		configuration := fmt.Sprintf(nginxConfiguration, directory, addr, origin, user)
		path := filepath.Join(directory, "nginx.conf")
		return []string{"-p", directory, "-e", filepath.Join(directory, "error.log"), "-c", path}, configuration,
			os.WriteFile(path, []byte(configuration), 0o600)
	})
}

const varnishConfiguration = `vcl 4.1;
backend default { .host = "%s"; .port = "%s"; }
sub vcl_deliver {
  unset resp.http.Age;
  unset resp.http.Via;
  unset resp.http.X-Varnish;
  set resp.http.Cache-Status = "varnish; hit";
}
`

// varnishSilence turns off all that a hit would write to the log.
const varnishSilence = "-Begin,-End,-Link,-SessOpen,-SessClose,-ReqStart,-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,-ReqAcct," +
	"-RespProtocol,-RespStatus,-RespReason,-RespHeader,-RespUnset,-VCL_call,-VCL_return,-VCL_use,-Hit,-Timestamp"

// startVarnish starts one before the origin: one pool of threads, which has as many as there are connections to serve, the
// cache in memory, and nothing written to the log in memory.
func startVarnish(ctx context.Context, origin string) (*peer, error) {
	host, port, err := net.SplitHostPort(origin)
	if err != nil {
		return nil, err
	}
	return startPeer(ctx, "varnishd", func(directory, addr string) ([]string, string, error) {
		configuration := fmt.Sprintf(varnishConfiguration, host, port)
		path := filepath.Join(directory, "page.vcl")
		arguments := []string{
			"-F", "-j", "none", "-n", filepath.Join(directory, "varnish"), "-a", addr, "-T", "127.0.0.1:0", "-f", path, "-s", "malloc,64m",
			"-p", "thread_pools=1", "-p", "thread_pool_min=10", "-p", "vsl_mask=" + varnishSilence,
		}
		return arguments, strings.Join(arguments[1:], " ") + "\n" + configuration, os.WriteFile(path, []byte(configuration), 0o600)
	})
}

// startPeer starts a program in a directory of its own, in memory where that is possible.
func startPeer(ctx context.Context, name string, prepare func(directory, addr string) (arguments []string, about string, err error)) (*peer, error) {
	program, err := lookProgram(name)
	if err != nil {
		return nil, err
	}
	parent := "/dev/shm"
	if info, err := os.Stat(parent); err != nil || !info.IsDir() {
		parent = ""
	}
	directory, err := os.MkdirTemp(parent, "bench-"+name+"-")
	if err != nil {
		return nil, err
	}
	remove := func() error { return os.RemoveAll(directory) }
	addr, err := freeAddr()
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	arguments, about, err := prepare(directory, addr)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	pid, stop, err := program.start(ctx, arguments...)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	about = program.version + "\n    " + strings.ReplaceAll(strings.TrimSpace(about), "\n", "\n    ")
	return &peer{name: name, addr: addr, about: about, roots: []int{pid}, close: func() error { return errors.Join(stop(), remove()) }}, nil
}

// freeAddr returns an address on which nobody listens at the moment.
func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
