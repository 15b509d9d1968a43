/** What a client sent, completed: the session's input, which never changes again. */
import { randomInt } from 'node:crypto'
import { fieldProblems, invalidFields, sessionError, workflowError } from '../errors.ts'
import type { Config } from '../config.ts'
import type { FastSupport } from '../domains/device/status.ts'
import type { WantedModel } from '../domains/values.ts'
import type { Devices } from '../farm/devices.ts'
import { isHere, smallestLimits, type WorkerRecord } from '../farm/record.ts'
import type { Catalogue as Models } from '../models/catalogue.ts'
import type { Quarantine } from '../models/quarantine.ts'
import { allOfKind, ofKind } from '../models/of-kind.ts'
import type { ItemCatalogue, Items, Workflow } from '../workflows/index.ts'
import { imagesOf, type ItemReads } from './item-reads.ts'
import type { Pictures } from './pictures.ts'
import type { Policies } from './policies.ts'
import type { Reads } from './reads.ts'
import type { Registry } from './registry.ts'
import { wildcardLines } from './wildcards.ts'

export interface CompletionParts {
  devices: Devices
  models: Models
  quarantine: Pick<Quarantine, 'check'>
  pictures: Pictures
  policies: Policies
  reads: Reads
  items: ItemReads
  registry: Registry
  config: Pick<Config, 'wildcards'>
  workers: () => Promise<WorkerRecord[]>
}

/** Whose request it is. `device`: the one that its steps run on; null: any. */
export interface Requester {
  keyId: string | null
  device: Promise<string | null> | string | null
  mayOperate?: boolean | undefined
}

export interface Completed {
  input: Record<string, unknown>
  /** SHA-256 of the pictures that it names. */
  pictures: readonly string[]
  /** What it works off besides. */
  items?: Items
}

/** @throws DarkroomError `api.invalid`, and whatever the workflow refuses it with */
export async function completed(parts: CompletionParts, workflow: Workflow, given: unknown, requester: Requester): Promise<Completed> {
  const { devices, models, quarantine, pictures, policies, reads, items, registry, config, workers } = parts
  const { keyId, device, mayOperate = false } = requester
  const parsed = workflow.input.safeParse(given)
  if (!parsed.success) throw invalidFields(fieldProblems(parsed.error.issues, 'input', 'input.'))
  const named = new Set<string>()
  /** Workers that may draw with a model, on the session's device where it has one. */
  const mayTake = async (model: WantedModel): Promise<WorkerRecord[]> => {
    const chosen = await device
    return (await workers()).filter(
      (each) => isHere(each) && models.holds(each.shelf, model) === 'yes' && (chosen === null || each.device.id === chosen),
    )
  }
  const catalogue: ItemCatalogue = {
    model: async (name, kind) => {
      const model = await models.model(name, kind)
      await quarantine.check(model, 'input.model')
      return model
    },
    named: (name, kind) => models.named(name, kind),
    ofKind: (kind, name, field) => ofKind(models, kind, name, field),
    all: (kind, field) => allOfKind(models, kind, field),
    async picture(sha256, field) {
      const found = await pictures.find(sha256, mayOperate ? null : keyId, field)
      named.add(sha256)
      return found
    },
    async results(id, field) {
      const session = await reads.get(id)
      const sees = session && (mayOperate || keyId === null || session.keyId === keyId)
      if (!sees) throw sessionError('unknown', `there is no session ${JSON.stringify(id.slice(0, 64))}`, { field })
      const rows: (string | null)[][] = []
      for await (const page of items.results(session))
        for (const { output } of page) rows.push(imagesOf(output).map(({ sha256 }) => sha256))
      // In a grid an item without a picture keeps its place.
      return { pictures: rows.flatMap((row) => (row.length > 0 ? row : [null])), columns: columnsOf(session.input, rows) }
    },
    draw: (below) => randomInt(below),
    device: async (name, field) => {
      const { device: chosen, id, epoch } = await devices.commanded(name, keyId, field)
      return { device: chosen.id, worker: id, epoch }
    },
    limits: async (model) => smallestLimits(await mayTake(model)),
    fast: async (model) => {
      // A worker of an earlier version says nothing of it.
      return (await mayTake(model)).flatMap(({ device: { id }, report }) => {
        const support = report.capabilities.fast as FastSupport | undefined
        return support ? [{ device: id, fast: support }] : []
      })
    },
    capacity: async (target) => {
      const worker = (await workers()).find(({ id, epoch }) => id === target.worker && epoch === target.epoch)
      return { device: worker?.report.figures.total ?? null, ram: worker?.report.ram.total ?? null }
    },
    policies: (wanted, field) => policies.forRequest(keyId, wanted, field),
    policy: (name, version, field) => policies.named(name, version, field),
    keyId,
    mayOperate,
    workflow(name, field) {
      const found = registry.newest(name, field)
      if (found.scope === 'operate' && !mayOperate)
        throw workflowError('forbidden', `${found.name} is for callers with the scope \`operate\``, { field })
      return found
    },
    complete: async (of, input) => (await completed(parts, of, input, requester)).input,
    wildcard: (name, field) => wildcardLines(config.wildcards, name, field),
  }
  if (workflow.expand) return { ...(await workflow.expand(parsed.data, catalogue)), pictures: [...named] }
  return { input: await workflow.resolveInput(parsed.data, catalogue), pictures: [...named] }
}

/** How many cells a row of a grid has, when each of its items has one picture; null of what is none. */
function columnsOf({ axes }: Record<string, unknown>, rows: readonly (readonly (string | null)[])[]): number | null {
  if (!Array.isArray(axes) || axes.length < 2 || rows.some(({ length }) => length > 1)) return null
  const counts = (axes as { count: number }[]).map(({ count }) => count)
  return counts.reduce((product, count) => product * count, 1) === rows.length ? (counts.at(-1) ?? null) : null
}
