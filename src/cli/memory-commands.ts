/** The commands that show and move memory. */
import { Option, type Command } from 'commander'
import { bytes, whole } from './arguments.ts'

/** @param client makes a command that is a client of the API, under another one or as one of the first */
export function addMemoryCommands(client: (name: string, summary: string, under?: Command) => Command): void {
  const memory = client('memory', 'show the memory of devices and hosts as bars')
    .enablePositionalOptions()
    .action(async (options) => (await import('./memory.ts')).show(options))
  const ofDevice = (name: string, summary: string): Command =>
    client(name, summary, memory).option('--device <device>', 'only of this device')
  ofDevice('allocations', 'list allocations').action(async (options) => (await import('./memory.ts')).allocations(options))
  ofDevice('analytics', 'show memory over time, and recommendations').action(async (options) =>
    (await import('./memory.ts')).analytics(options),
  )
  ofDevice('leaks', 'allocations that outlived their owners').action(async (options) => (await import('./memory.ts')).leaks(options))
  const making = (command: Command): Command =>
    command
      .option('--device <device>', 'where; default: your default device, else the only one')
      .addOption(new Option('--kind <kind>', 'default: device').choices(['device', 'upload', 'readback']))
      .addOption(new Option('--placement <placement>', 'default: automatic').choices(['automatic', 'committed', 'placed']))
      .option('--ttl <seconds>', 'time to live; default: 600', whole(1, 86_400))
  const ranging = (command: Command): Command =>
    command
      .option('--from-at <size>', 'offset in the source', bytes)
      .option('--at <size>', 'offset in the target', bytes)
      .option('--bytes <size>', 'how much; default: as much as there is', bytes)
  making(client('allocate', 'allocate memory; prints its id', memory).argument('<size>', 'as in 64MiB', bytes)).action(
    async (amount: number, options) => (await import('./memory.ts')).allocate(amount, options),
  )
  client('release', 'release allocations', memory)
    .argument('<allocation...>')
    .action(async (ids: string[], options) => (await import('./memory.ts')).release(ids, options))
  client('renew', 'renew the time to live of an allocation', memory)
    .argument('<allocation>')
    .option('--ttl <seconds>', 'default: 600', whole(1, 86_400))
    .action(async (id: string, options) => (await import('./memory.ts')).renew(id, options))
  ranging(client('copy', 'copy within one device', memory).argument('<from>').argument('<to>'))
    .option('--verify', 'compare checksums afterwards')
    .action(async (from: string, to: string, options) => (await import('./memory.ts')).copy(from, to, options))
  ranging(making(client('transfer', 'transfer to another device; prints the id of the allocation there', memory).argument('<from>')))
    .option('--to <allocation>', 'into this one, not a new one')
    .option('--no-verify', 'do not compare checksums')
    .action(async (from: string, options) => (await import('./memory.ts')).transfer(from, options))
  client('defragment', 'move placed allocations together', memory)
    .argument('<device>')
    .action(async (id: string, options) => (await import('./memory.ts')).defragment(id, options))
}
