// Package java makes a directory of classes of a function written in Java.
//
// Generate copies the source and says how it is compiled; package deploy runs that in a sandbox.
// Finish adds to the classes what a function brings besides (jars in lib, resources) and finds
// the class of its handler, by reading class files. Settle does the latter for code that was
// compiled elsewhere. Nothing here executes what it reads.
//
// The bootstrap is the jar of src, made by build.sh. Its own comments say how it works.
package java
