package faas

import "context"

type askerKey struct{}

// asker is an instance that asked for something.
type asker struct {
	instance string
	gone     <-chan struct{}
}

// WithInstance returns a context of what is done because an instance of a function asked for it, and may
// wait for it until ctx is done. Contexts that are made of it without its end keep that.
func WithInstance(ctx context.Context, instance string) context.Context {
	return context.WithValue(ctx, askerKey{}, asker{instance, ctx.Done()})
}

// InstanceOf returns the instance that asked for what is done, as far as it is known; empty: none did.
func InstanceOf(ctx context.Context) string {
	instance, _ := AskedBy(ctx)
	return instance
}

// AskedBy is InstanceOf, with a channel that is closed when the instance does not wait any more for what
// it asked for.
func AskedBy(ctx context.Context) (instance string, gone <-chan struct{}) {
	a, _ := ctx.Value(askerKey{}).(asker)
	return a.instance, a.gone
}
