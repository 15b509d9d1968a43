/** The engine's times in the farms of tests. */
import { productTimes, type Times } from '../../src/engine/times.ts'

/** A lease of two seconds, which a busy machine can still keep, and over which a connection comes back. */
const share = 0.4

/**
 * A share of the product's, for most farms: what waits for a lease waits less. worker-death.test.ts keeps those of the
 * product, and so do the long runs that load the machine.
 */
export const quickTimes = Object.fromEntries(
  Object.entries(productTimes).map(([name, ms]) => [name, Math.round(Number(ms) * share)]),
) as unknown as Times

/**
 * How long a process that has started, or that Redis has come back to, declares no lease dead; with the sweep that does
 * it then.
 */
export const graceMs = ({ leaseMs, leaseSweepMs }: Times): number => leaseMs + leaseSweepMs
