/** `darkroom policies`: content safety, as versions that are written, tried, activated and rolled back. */
import { readFile } from 'node:fs/promises'
import type { PolicyDocument, PolicyTrial, TryPolicy } from '../client/index.ts'
import { onDisk } from '../disk.ts'
import { invalidFields } from '../errors.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { watched } from './sessions.ts'
import { fields, inline, say, sayJson, table } from './terminal.ts'

interface Output extends ConnectionOptions {
  json?: boolean
}

/** @throws DarkroomError `api.invalid` for a file that is no JSON; as `onDisk` */
async function jsonOf(file: string): Promise<unknown> {
  const text = (await onDisk(file, readFile(file))).toString('utf8')
  try {
    return JSON.parse(text) as unknown
  } catch (error) {
    throw invalidFields([{ field: file, message: `is no JSON: ${(error as Error).message}` }])
  }
}

export async function list(options: Output): Promise<void> {
  const policies = await (await connectApi(options)).policies.list()
  if (options.json) return sayJson(policies)
  if (policies.length === 0) return say('no policies: pictures are not judged')
  const rows = policies.map(({ name, newest, active, appliesTo }) => [
    name,
    active === null ? 'none' : String(active),
    String(newest),
    appliesTo.join(', ') || 'whoever names it',
  ])
  say(table(['POLICY', 'ACTIVE', 'NEWEST', 'APPLIES TO'], rows))
}

/** A policy with its changes, or one of its versions. */
export async function show(name: string, version: number | undefined, options: Output): Promise<void> {
  const { policies } = await connectApi(options)
  if (version !== undefined) return sayJson(await policies.version(name, version))
  const policy = await policies.get(name)
  if (options.json) return sayJson(policy)
  say(
    fields(
      [
        ['policy', policy.name],
        ['active', policy.active === null ? 'none' : `version ${policy.active}`],
        ['newest', `version ${policy.newest}`],
        ['applies to', policy.appliesTo.join(', ') || 'whoever names it'],
        ...policy.changes.map(({ at, by, change, version: number }): [string, string] => [
          at,
          `${change}: version ${number}${by === null ? '' : `, by ${by}`}`,
        ]),
      ],
      26,
    ),
  )
}

export async function add(name: string, file: string, options: Output): Promise<void> {
  const { policies } = await connectApi(options)
  const added = await policies.add(name, (await jsonOf(file)) as PolicyDocument)
  if (options.json) return sayJson(added)
  say(`${name}: version ${added.version}; it applies once you activate it`)
}

/** `file`: samples, as a JSON list. */
export async function tryOut(name: string, version: number, file: string, options: Output & { against?: number }): Promise<void> {
  const { policies } = await connectApi(options)
  const samples = (await jsonOf(file)) as TryPolicy['samples']
  const { against } = options
  const found = await policies.try(name, { version, samples, ...(against !== undefined && { against }) })
  if (options.json) return sayJson(found)
  say(told(found))
}

const kinds = ['allow', 'flag', 'blur', 'block'] as const

function told({ samples, confusion, asExpected, wrong, wrongMore, changes, unscored, actions }: PolicyTrial): string {
  const expecting = kinds.filter((kind) => kinds.some((other) => confusion[kind][other] > 0))
  const rows = [
    ['all', ...kinds.map((kind) => String(actions[kind]))],
    ...expecting.map((kind) => [`expected ${kind}`, ...kinds.map((other) => String(confusion[kind][other]))]),
  ]
  const called = (sample: number, name: string | null): string => inline(name ?? `sample ${sample + 1}`)
  const lines = [
    table(['', ...kinds.map((kind) => kind.toUpperCase())], rows),
    ...(expecting.length > 0 ? [`${asExpected} of ${samples} as expected`] : []),
    ...wrong.map(
      ({ sample, name, expected, action, rule, passes }) =>
        `${called(sample, name)}: ${action}${rule === null ? '' : ` by ${rule}`}, expected ${expected}${passes === null ? '' : `; passes with ${passes}`}`,
    ),
    ...(wrongMore > 0 ? [`and ${wrongMore} more`] : []),
    ...(changes ? [`against version ${changes.version}: ${changes.stricter} stricter, ${changes.milder} milder`] : []),
    ...(changes?.first ?? []).map(({ sample, name, from, to }) => `${called(sample, name)}: ${from.action}, now ${to.action}`),
    ...unscored.map(({ category, samples: count }) => `${count} samples have no score of ${category}: such pictures would not pass`),
  ]
  return lines.join('\n')
}

export async function compare(name: string, from: number, to: number, options: Output): Promise<void> {
  const found = await (await connectApi(options)).policies.compare(name, from, to)
  if (options.json) return sayJson(found)
  if (found.differences.length === 0) return say(`versions ${from} and ${to} of ${name} say the same`)
  const rows = found.differences.map((each) => [each.at, JSON.stringify(each.from), JSON.stringify(each.to)])
  say(table(['AT', `VERSION ${from}`, `VERSION ${to}`], rows))
}

export async function activate(name: string, version: number, options: Output): Promise<void> {
  const found = await (await connectApi(options)).policies.activate(name, version)
  if (options.json) return sayJson(found)
  say(`${name}: version ${found.version} is in force`)
}

export async function rollBack(name: string, options: Output): Promise<void> {
  const found = await (await connectApi(options)).policies.rollBack(name)
  if (options.json) return sayJson(found)
  say(`${name}: version ${found.version} is in force again`)
}

interface Rejudge extends Output {
  session?: string
  version?: number
  anew?: boolean
}

/** `pictures`: ids; none where a session is said. */
export async function rejudge(policy: string, pictures: string[], { json, url, ...said }: Rejudge): Promise<void> {
  const client = await connectApi(url === undefined ? {} : { url })
  const input = { policy, ...said, ...(pictures.length > 0 && { pictures }) }
  const found = await watched({ ...(json && { json }) }, (options) => client.run('image-rejudge', input, options))
  if (json) return sayJson(found)
  const { actions, before, stricter, milder, open, listed, more, leftOut } = found
  const rows = [
    ['before', ...kinds.map((kind) => String(before[kind]))],
    ['now', ...kinds.map((kind) => String(actions[kind]))],
  ]
  const lines = [
    table(['', ...kinds.map((kind) => kind.toUpperCase())], rows),
    `${found.pictures} pictures: ${stricter} stricter, ${milder} milder, ${open} cannot be judged`,
    ...listed.map(({ sha256, was, action, rule, why }) =>
      inline(`${sha256}: ${was ?? 'never judged'}, ${why ?? `now ${action}${rule === null ? '' : ` by ${rule}`}`}`),
    ),
    ...(more > 0 ? [`and ${more} more`] : []),
    ...leftOut.map((rule) => `left out, as nobody knows whose request it was: ${inline(rule)}`),
  ]
  say(lines.join('\n'))
}

/** `none` takes it away. */
export async function apply(who: string, policy: string, options: Output): Promise<void> {
  const found = await (await connectApi(options)).policies.apply(who, policy === 'none' ? null : policy)
  if (options.json) return sayJson(found)
  const whom = who === 'default' ? 'everybody without a policy of their own' : `API key ${who}`
  say(found.policy === null ? `no policy of its own applies to ${whom} any more` : `${found.policy} applies to ${whom}`)
}
