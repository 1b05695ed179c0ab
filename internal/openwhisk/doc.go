// Package openwhisk is the dialect of Apache OpenWhisk: its REST API, as its own clients speak it,
// over the same catalog, dispatcher, journal and triggers as the native one.
//
//	OpenWhisk            here
//	subject              auth.Subject: who has keys to namespaces
//	namespace            namespace
//	package, binding     faas.Package, one with a Binding
//	action               function whose revision has the contract faas.ContractOpenWhisk
//	action's version     a revision; the number lies in its Origin
//	exec, kind           runtime
//	sequence             revision with a Sequence
//	conductor            revision that decides the next step
//	parameters           Params of revision and package; those for init are its environment
//	annotations          in the Origin
//	trigger, rule        faas.Trigger, faas.Rule, with an Origin
//	feed                 a source of the trigger, set by the feed action's life cycle
//	activation           activation, with what only this dialect shows in its Note
//	initTime, waitTime   phases of the timing
//
// The contract is docs/openwhisk.md. How a function of OpenWhisk is called inside its process is
// decided by package runtimes; who calls what and when is decided by package dispatch.
package openwhisk
