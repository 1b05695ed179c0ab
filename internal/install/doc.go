// Package install turns what a manifest names into a layer: a directory of packages that is kept by
// its content, mounted read-only, and shared by all functions that name the same.
//
// What is installed is decided by the manifest, its lock, the platform, the runtime's version and the
// tool; their digest is the layer's key. Two deploys that want the same key wait for one
// installation. It runs in a sandbox with a way to the registries and to nothing else of ours: no
// credential of the platform, no other tenant's files, limits on time, memory and disk.
//
// How each kind of manifest is read is an Ecosystem. What the code itself becomes is left to package
// deploy.
package install
