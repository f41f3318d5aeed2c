// Package main is a workload to prove a cluster with. Without arguments it serves HTTP on port 8080:
// / says which pod answers, /healthz that it is alive, /lookup?name=NAME the addresses of a name, and
// /get?url=URL what another server answers. `lookup NAME` and `get URL` do the same once, for exec.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sort"
	"strings"
	"syscall"
	"time"
)

const (
	// What one question may take.
	patience = 5 * time.Second
	// More of another server's answer than this is not passed on.
	bodyBytesMax = 64 << 10
)

func lookup(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	sort.Strings(addresses)
	return strings.Join(addresses, "\n"), err
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// One connection per question, so that a Service's balancing shows.
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyBytesMax))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, response.Status)
	}
	return strings.TrimSuffix(string(body), "\n"), err
}

type question func(context.Context, string) (string, error)

func answer(ask question, parameter string) http.HandlerFunc {
	return func(writer http.ResponseWriter, request *http.Request) {
		text, err := ask(request.Context(), request.URL.Query().Get(parameter))
		if err != nil {
			http.Error(writer, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintln(writer, text)
	}
}

func serve() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	handlers := http.NewServeMux()
	handlers.HandleFunc("/{$}", func(writer http.ResponseWriter, request *http.Request) {
		log.Printf("%s from %s", request.URL.Path, request.RemoteAddr)
		fmt.Fprintf(writer, "hello from %s\n", host)
	})
	handlers.HandleFunc("/healthz", func(writer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(writer, "ok")
	})
	handlers.HandleFunc("/lookup", answer(lookup, "name"))
	handlers.HandleFunc("/get", answer(get, "url"))
	server := &http.Server{Addr: ":8080", Handler: handlers, ReadHeaderTimeout: patience}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ended.Done()
		log.Print("ending")
		if err := server.Close(); err != nil {
			log.Print(err)
		}
	}()
	log.Printf("%s serves on %s", host, server.Addr)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func main() {
	// It has next to no heap; an earlier collection keeps it so.
	debug.SetGCPercent(20)
	asks := map[string]question{"lookup": lookup, "get": get}
	switch {
	case len(os.Args) == 1:
		if err := serve(); err != nil {
			log.Fatal(err)
		}
	case len(os.Args) == 3 && asks[os.Args[1]] != nil:
		text, err := asks[os.Args[1]](context.Background(), os.Args[2])
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(text)
	default:
		log.Fatal("usage: capstan-sample [lookup NAME | get URL]")
	}
}
