/**
 * Workflows of one's own in this process. Which content stands behind a name and version is recorded when the first
 * session uses it, once for the whole farm; a process that has another does not touch its sessions.
 */
import { workflowError, type DarkroomError } from '../errors.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { translated, type Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import { workflowId } from '../workflows/index.ts'
import { readFolder, type OwnWorkflow, type Refused } from '../workflows/own/folder.ts'
import type { Registry } from './registry.ts'

/** What came of reading the folder. */
export interface OwnReport {
  /** `name@version` of those that can be used. */
  loaded: string[]
  refused: Refused[]
}

/** How often a process looks whether the folder is to be read again, ms. */
const lookMs = 1000

export interface OwnWorkflowsParts {
  redis: Redis
  registry: Registry
  folder: string | undefined
  log: Logger
}

export class OwnWorkflows {
  readonly #parts: OwnWorkflowsParts
  readonly #ticker: Ticker
  /** Those whose content is known to be the one that is used, by `name@version`. */
  readonly #agreed = new Set<string>()
  #generation = 0
  #reading: Promise<unknown> = Promise.resolve()

  constructor(parts: OwnWorkflowsParts) {
    this.#parts = parts
    const failed = (error: unknown): void => parts.log.warn({ err: error }, 'it is not known whether workflows are to be read again')
    this.#ticker = new Ticker(lookMs, () => this.#look(), failed)
  }

  /**
   * Reads the folder, if there is one, and again whenever somebody asks any process for it.
   * @throws DarkroomError `workflow.unloadable` when there is no such folder; `redis.unavailable`
   */
  async open(): Promise<void> {
    if (this.#parts.folder === undefined) return
    this.#generation = await this.#asked()
    await this.#read()
    this.#ticker.start()
  }

  /**
   * Reads the folder again, here and in every other process.
   * @throws DarkroomError `workflow.no_folder`; `workflow.unloadable` when it is gone
   */
  async reload(): Promise<OwnReport> {
    if (this.#parts.folder === undefined) throw workflowError('no_folder', 'there is no folder of workflows')
    const report = await this.#read()
    await translated(this.#parts.redis.incr(keys.workflowsAsked()))
    return report
  }

  /**
   * Uses a workflow: from now on its name and version stand for this content, unless they stood for another.
   * @throws DarkroomError `workflow.changed`
   */
  async use(id: string): Promise<void> {
    if (!(await this.agrees(id))) throw usedOtherwise(id)
  }

  /** Whether it could be used; its name and version stand for nothing afterwards. @throws as `use` */
  async mayUse(id: string): Promise<void> {
    const { redis, registry } = this.#parts
    const source = registry.source(id)
    if (source === null || this.#agreed.has(id)) return
    const used = await translated(redis.hget(keys.workflowContents(), id))
    if (used !== null && used !== source.sha256) throw usedOtherwise(id)
  }

  /** Whether this process may compute sessions of the workflow. A promise only at its first use here. */
  agrees(id: string): boolean | Promise<boolean> {
    const source = this.#parts.registry.source(id)
    return source === null || this.#agreed.has(id) || this.#compare(id, source.sha256)
  }

  async stop(): Promise<void> {
    await this.#ticker.stop()
    await this.#reading.catch(() => undefined)
  }

  async #compare(id: string, sha256: string): Promise<boolean> {
    const { redis, registry, log } = this.#parts
    await translated(redis.hsetnx(keys.workflowContents(), id, sha256))
    const used = await translated(redis.hget(keys.workflowContents(), id))
    if (used === sha256) this.#agreed.add(id)
    else {
      registry.forget(id)
      log.warn({ workflow: id, used, here: sha256 }, 'a workflow has been used with another content than this process has')
    }
    return used === sha256
  }

  #read(): Promise<OwnReport> {
    const turn = this.#reading.catch(() => undefined).then(() => this.#readNow())
    this.#reading = turn
    return turn
  }

  async #readNow(): Promise<OwnReport> {
    const { registry, folder = '', log } = this.#parts
    const { loaded, refused } = await readFolder(folder, registry.builtIn, registry.operations)
    const used = await this.#used(loaded.map(({ workflow }) => workflowId(workflow)))
    const isOther = ({ workflow, sha256 }: OwnWorkflow): boolean => (used.get(workflowId(workflow)) ?? sha256) !== sha256
    const changed = loaded
      .filter(isOther)
      .map((own): Refused => ({ file: own.file, workflow: workflowId(own.workflow), error: changedIn(own) }))
    const good = loaded.filter((own) => !isOther(own))
    for (const { workflow, sha256 } of good)
      if (registry.source(workflowId(workflow))?.sha256 !== sha256) this.#agreed.delete(workflowId(workflow))
    // One that was refused for its change stays as it was used, in a process that has it still.
    registry.replaceOwn([...good, ...changed.flatMap(({ file, workflow }) => this.#kept(workflow ?? '', file, used))])
    const all = [...refused, ...changed]
    for (const { file, workflow, error } of all) log.warn({ file, workflow, err: error }, 'a workflow was refused')
    return { loaded: good.map(({ workflow }) => workflowId(workflow)), refused: all }
  }

  #kept(id: string, file: string, used: ReadonlyMap<string, string>): OwnWorkflow[] {
    const { registry } = this.#parts
    const [workflow, source] = [registry.workflow(id), registry.source(id)]
    return workflow && source && source.sha256 === used.get(id) ? [{ workflow, file, sha256: source.sha256 }] : []
  }

  async #used(ids: readonly string[]): Promise<ReadonlyMap<string, string>> {
    if (ids.length === 0) return new Map()
    const contents = await translated(this.#parts.redis.hmget(keys.workflowContents(), ...ids))
    return new Map(ids.flatMap((id, i): [string, string][] => (typeof contents[i] === 'string' ? [[id, contents[i]]] : [])))
  }

  async #look(): Promise<void> {
    const asked = await this.#asked()
    if (asked === this.#generation) return
    this.#generation = asked
    await this.#read()
  }

  async #asked(): Promise<number> {
    return Number((await translated(this.#parts.redis.get(keys.workflowsAsked()))) ?? 0)
  }
}

const usedOtherwise = (id: string): DarkroomError =>
  workflowError('changed', `${id} has been used with another content than this process has`, { field: 'workflow' })

const changedIn = ({ workflow, file }: OwnWorkflow): DarkroomError =>
  workflowError('changed', `${file}: ${workflowId(workflow)} has been used with another content`)
