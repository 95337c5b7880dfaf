#pragma once

namespace brume::tools {

/// Starts the program a second time in this process, with GOMP_SPINCOUNT set, if its command computes; returns if nothing is to be done.
///
/// A thread of GCC's OpenMP spins for some milliseconds before it sleeps. On cores that other programs use as well it spins while the
/// thread it waits for cannot run, and training becomes three to ten times slower. With a short spin it loses nothing to speak of on
/// either. libgomp reads the variable when it is loaded, before main(), and has no function that sets it later.
///
/// Nothing is done if GOMP_SPINCOUNT or OMP_WAIT_POLICY is set (which is also what ends the second start), or under a debugger.
void limit_spinning(int argc, char** argv);

}  // namespace brume::tools
