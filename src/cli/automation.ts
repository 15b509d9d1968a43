/** Commands of who runs a farm: what goes on by itself, and what to look at. */
import { InvalidArgumentError, Option, type Command } from 'commander'
import { bulkActions } from '../engine/bulk-actions.ts'
import { overlaps } from '../engine/overlap.ts'
import { statuses } from '../engine/session.ts'
import { deliveryStates, endings } from '../webhooks/states.ts'
import { collect, field, whole } from './arguments.ts'

/** Makes a command that is a client of the API. */
type MakeCommand = (name: string, summary: string, under?: Command) => Command

export function addAutomation(client: MakeCommand): void {
  client('top', 'show queue, workers and sessions, redrawn in place; once without a terminal')
    .option('--interval <seconds>', 'between two looks; default: 1', whole(1, 3600))
    .action(async (options) => (await import('./top.ts')).top(options))
  client('audit', 'list what callers with the scope operate have changed')
    .option('--limit <n>', 'how many', whole(1, 10_000))
    .action(async (options) => (await import('./audit.ts')).audit(options))
  addBulk(client)
  addSchedules(client)
  addWebhooks(client)
}

function addBulk(client: MakeCommand): void {
  client('bulk', 'pause, resume, cancel, delete or tag all sessions that a filter finds; without --yes it counts them')
    .argument('<action>', bulkActions.join(', '), (text) => oneOf(bulkActions, text))
    .addOption(new Option('--status <status>', 'only these').choices([...statuses]))
    .option('--workflow <name>', 'only of this workflow')
    .option('--tag <tag>', 'only with this tag')
    .option('--parent <session>', 'only children of this session')
    .option('--add-tag <tag>', 'of the action tag; may be given several times', collect)
    .option('--remove-tag <tag>', 'of the action tag; may be given several times', collect)
    .option('--yes', 'do it')
    .action(async (action: (typeof bulkActions)[number], options) => (await import('./bulk.ts')).bulk(action, options))
}

function oneOf<T extends string>(words: readonly T[], text: string): T {
  const found = words.find((word) => word === text)
  if (found === undefined) throw new InvalidArgumentError(`must be one of ${words.join(', ')}`)
  return found
}

function addSchedules(client: MakeCommand): void {
  const schedules = client('schedules', 'list schedules: what is submitted again and again')
    .enablePositionalOptions()
    .action(async (options) => (await import('./schedules.ts')).list(options))
  client('add', 'submit a workflow by a cron pattern, or every so many seconds', schedules)
    .argument('<name>', 'a name to know it by')
    .argument('<workflow>', 'as GET /v1/workflows lists it')
    .argument('[field=value...]', 'its input, as of `darkroom run`', field, new Map())
    .option('--cron <pattern>', 'five fields: minute, hour, day, month, weekday; as "30 2 * * 1-5"')
    .option('--timezone <zone>', 'of the pattern, as Europe/Berlin; default: UTC')
    .option('--every <seconds>', 'in place of a pattern', whole(1, 366 * 86_400))
    .addOption(new Option('--overlap <how>', 'while the session before has not ended; default: skip').choices([...overlaps]))
    .option('--catch-up <seconds>', 'how late one may still start; default: 3600', whole(10, 6 * 86_400))
    .action(async (name: string, workflow: string, input: Map<string, string>, options) =>
      (await import('./schedules.ts')).add(name, workflow, input, options),
    )
  client('show', 'show a schedule, and what came of the last times', schedules)
    .argument('<schedule>')
    .action(async (id: string, options) => (await import('./schedules.ts')).show(id, options))
  for (const verb of ['pause', 'resume'] as const) {
    client(verb, `${verb} a schedule`, schedules)
      .argument('<schedule>')
      .action(async (id: string, options) => (await import('./schedules.ts')).control(verb, id, options))
  }
  client('remove', 'remove a schedule; its sessions go on', schedules)
    .argument('<schedule>')
    .action(async (id: string, options) => (await import('./schedules.ts')).remove(id, options))
}

function addWebhooks(client: MakeCommand): void {
  const webhooks = client('webhooks', 'list webhooks: where the ends of sessions are told')
    .enablePositionalOptions()
    .action(async (options) => (await import('./webhooks.ts')).list(options))
  client('add', 'make a webhook; prints its secret, which is shown this once', webhooks)
    .argument('<url>')
    .addOption(new Option('--event <event...>', 'ends that it is told of; default: all').choices([...endings]))
    .action(async (url: string, options) => (await import('./webhooks.ts')).add(url, options))
  client('rotate', 'give a webhook a new secret; the one before signs for another day', webhooks)
    .argument('<webhook>')
    .action(async (id: string, options) => (await import('./webhooks.ts')).rotate(id, options))
  client('remove', 'remove a webhook', webhooks)
    .argument('<webhook>')
    .action(async (id: string, options) => (await import('./webhooks.ts')).remove(id, options))
  client('deliveries', 'list what a webhook was not told', webhooks)
    .argument('<webhook>')
    .addOption(new Option('--state <state>', 'default: dead').choices([...deliveryStates]))
    .option('--limit <n>', 'how many', whole(1, 1000))
    .action(async (id: string, options) => (await import('./webhooks.ts')).deliveries(id, options))
  client('send', 'send deliveries once more: those of these sessions, else the dead ones', webhooks)
    .argument('<webhook>')
    .argument('[session...]')
    .action(async (id: string, sessions: string[], options) => (await import('./webhooks.ts')).send(id, sessions, options))
}
