package faas

import "context"

type instanceKey struct{}

// WithInstance returns a context of what is done because an instance of a function asked for it.
func WithInstance(ctx context.Context, instance string) context.Context {
	return context.WithValue(ctx, instanceKey{}, instance)
}

// InstanceOf returns the instance that asked for what is done, as far as it is known; empty: none did.
func InstanceOf(ctx context.Context) string {
	instance, _ := ctx.Value(instanceKey{}).(string)
	return instance
}
