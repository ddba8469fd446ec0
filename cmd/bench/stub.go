package main
import "context"
func measureLatency(ctx context.Context, b *bench) ([]Result, error) { return nil, nil }
func measureMemory(ctx context.Context, b *bench) ([]Result, error) { return nil, nil }
func measureAttach(ctx context.Context, b *bench) ([]Result, error) { return nil, nil }
func measureHarm(ctx context.Context, b *bench) ([]Result, error) { return nil, nil }
func measureCurves(ctx context.Context, b *bench) ([]Result, error) { return nil, nil }
