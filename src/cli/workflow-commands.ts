/** Commands about workflows, and about sessions that go on elsewhere, with their options. */
import type { Command } from 'commander'
import { field, whole } from './arguments.ts'

/** Adds a command that is a client of the API, below another or at the top. */
type Client = (name: string, summary: string, under?: Command) => Command

export function addWorkflowCommands(client: Client): void {
  const workflows = client('workflows', 'list the workflows')
    .enablePositionalOptions()
    .action(async (options) => (await import('./workflows.ts')).list(options))
  client('show', 'show a workflow: its input, its diagram', workflows)
    .argument('<workflow>', 'name, or name@version')
    .action(async (name: string, options) => (await import('./workflows.ts')).show(name, options))
  client('reload', 'read the folder of your own workflows again; exits 1 when something in it is refused', workflows).action(
    async (options) => (await import('./workflows.ts')).reload(options),
  )
  client('states', 'list the states that a session was in, from which it can be forked')
    .argument('<session>')
    .action(async (id: string, options) => (await import('./exports.ts')).states(id, options))
  client('fork', 'make a new session that goes on from a state of another, with the same input or a changed one')
    .argument('<session>')
    .option('--entry <n>', 'the state after this entry of its history; default: the latest', whole(1, 10_000))
    .option('--call <n>', 'go on from this denoise call, while its checkpoint is kept', whole(1, 100_000))
    .option('--set <field=value>', 'field of the request that is to be another; may be given several times', field)
    .action(async (id: string, options) => (await import('./exports.ts')).fork(id, options))
  client('export', 'save a session as a file that another farm can replay')
    .argument('<session>')
    .option('--out <file>', 'default: darkroom-SESSION.json')
    .action(async (id: string, options) => (await import('./exports.ts')).exportSession(id, options))
  client('replay', 'run an exported session again and compare the result; exits 3 when it is another')
    .argument('<file>')
    .action(async (file: string, options) => (await import('./exports.ts')).replay(file, options))
}
