// An NRI plugin for tests, written on the stub package that real plugins are written on.
//
// What it is told goes to a log, one JSON object a line. What it does is in a script, a JSON file that is read anew for
// every event, so that a test can change its mind:
//
//	adjust   container name -> ContainerAdjustment
//	update   event -> list of ContainerUpdate
//	fail     event -> the error to answer with
//	hang     events that are never answered
//	crash    events that end the process
//	reject   what to say against every adjustment
//
// On SIGUSR1 it asks for the updates of event "Unsolicited".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
)

type script struct {
	Adjust map[string]json.RawMessage   `json:"adjust"`
	Update map[string][]json.RawMessage `json:"update"`
	Fail   map[string]string            `json:"fail"`
	Hang   []string                     `json:"hang"`
	Crash  []string                     `json:"crash"`
	Reject string                       `json:"reject"`
}

type plugin struct {
	lock       sync.Mutex
	log        *os.File
	scriptPath string
}

// A plugin that also judges the adjustments of others.
type validator struct {
	*plugin
}

func (p *plugin) read() (s script) {
	data, err := os.ReadFile(p.scriptPath)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		panic(err)
	}
	return s
}

func (p *plugin) write(event string, messages map[string]proto.Message) {
	line := map[string]any{"event": event}
	for name, message := range messages {
		data, err := protojson.Marshal(message)
		if err != nil {
			panic(err)
		}
		line[name] = json.RawMessage(data)
	}
	data, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	fmt.Fprintf(p.log, "%s\n", data)
}

func (p *plugin) told(event string, pod *api.PodSandbox, container *api.Container) error {
	messages := map[string]proto.Message{"pod": pod}
	if container != nil {
		messages["container"] = container
	}
	p.write(event, messages)
	s := p.read()
	switch {
	case slices.Contains(s.Crash, event):
		os.Exit(3)
	case slices.Contains(s.Hang, event):
		select {}
	case s.Fail[event] != "":
		return errors.New(s.Fail[event])
	}
	return nil
}

func (p *plugin) updates(event string) []*api.ContainerUpdate {
	var updates []*api.ContainerUpdate
	for _, data := range p.read().Update[event] {
		update := &api.ContainerUpdate{}
		if err := protojson.Unmarshal(data, update); err != nil {
			panic(err)
		}
		updates = append(updates, update)
	}
	return updates
}

func (p *plugin) Configure(_ context.Context, config, runtime, version string) (api.EventMask, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	line, _ := json.Marshal(map[string]string{"event": "Configure", "config": config, "runtime": runtime, "version": version})
	fmt.Fprintf(p.log, "%s\n", line)
	return 0, nil
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	ids := map[string][]string{"pods": {}, "containers": {}}
	for _, pod := range pods {
		ids["pods"] = append(ids["pods"], pod.Id)
	}
	for _, container := range containers {
		ids["containers"] = append(ids["containers"], container.Id)
	}
	line, _ := json.Marshal(map[string]any{"event": "Synchronize", "pods": ids["pods"], "containers": ids["containers"]})
	p.lock.Lock()
	fmt.Fprintf(p.log, "%s\n", line)
	p.lock.Unlock()
	return p.updates("Synchronize"), nil
}

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("RunPodSandbox", pod, nil)
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, _ *api.LinuxResources) error {
	return p.told("UpdatePodSandbox", pod, nil)
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("PostUpdatePodSandbox", pod, nil)
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("StopPodSandbox", pod, nil)
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("RemovePodSandbox", pod, nil)
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	if err := p.told("CreateContainer", pod, container); err != nil {
		return nil, nil, err
	}
	data, ok := p.read().Adjust[container.Name]
	if !ok {
		return nil, p.updates("CreateContainer"), nil
	}
	adjust := &api.ContainerAdjustment{}
	if err := protojson.Unmarshal(data, adjust); err != nil {
		return nil, nil, err
	}
	return adjust, p.updates("CreateContainer"), nil
}

func (p *plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("PostCreateContainer", pod, container)
}

func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("StartContainer", pod, container)
}

func (p *plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("PostStartContainer", pod, container)
}

func (p *plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container, _ *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	return p.updates("UpdateContainer"), p.told("UpdateContainer", pod, container)
}

func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("PostUpdateContainer", pod, container)
}

func (p *plugin) StopContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) ([]*api.ContainerUpdate, error) {
	return p.updates("StopContainer"), p.told("StopContainer", pod, container)
}

func (p *plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.told("RemoveContainer", pod, container)
}

func (v *validator) ValidateContainerAdjustment(_ context.Context, request *api.ValidateContainerAdjustmentRequest) error {
	v.write("ValidateContainerAdjustment", map[string]proto.Message{"request": request})
	if reason := v.read().Reject; reason != "" {
		return errors.New(reason)
	}
	return nil
}

func main() {
	index := flag.String("idx", "", "plugin index; a launched plugin is told")
	socket := flag.String("socket", "", "the runtime's socket")
	logPath := flag.String("log", os.Getenv("NRI_TEST_LOG"), "where to write what it is told")
	scriptPath := flag.String("script", os.Getenv("NRI_TEST_SCRIPT"), "what to do")
	validates := flag.Bool("validate", false, "judge adjustments too")
	fails := flag.Bool("fail-request", false, "failure policy: fail the request")
	stays := flag.Bool("keep-connected", false, "failure policy: stay connected after a timeout")
	flag.Parse()

	if os.Getenv("NRI_PLUGIN_SOCKET") != "" && *logPath == "" {
		*logPath, *scriptPath = os.Args[0]+".log", os.Args[0]+".script"
	}
	log, err := os.OpenFile(*logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	p := &plugin{log: log, scriptPath: *scriptPath}
	options := []stub.Option{stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: *fails, KeepConnected: *stays})}
	if *index != "" {
		options = append(options, stub.WithPluginIdx(*index), stub.WithPluginName("test"))
	}
	if *socket != "" {
		options = append(options, stub.WithSocketPath(*socket))
	}
	var handlers any = p
	if *validates {
		handlers = &validator{p}
	}
	s, err := stub.New(handlers, options...)
	if err != nil {
		panic(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
			failed, err := s.UpdateContainers(p.updates("Unsolicited"))
			ids := []string{}
			for _, update := range failed {
				ids = append(ids, update.ContainerId)
			}
			line, _ := json.Marshal(map[string]any{"event": "Updated", "failed": ids, "error": fmt.Sprint(err)})
			p.lock.Lock()
			fmt.Fprintf(p.log, "%s\n", line)
			p.lock.Unlock()
		}
	}()
	if err := s.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
