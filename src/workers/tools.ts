/** The tools of one attempt: the bridge between its operation, the artifact store and the Python child. */
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { ArtifactKind, ArtifactStore } from '../artifacts/store.ts'
import { onDisk, requireRoom } from '../disk.ts'
import { deviceLost, type DeviceTools, type PythonResult, type StepProgress, type Tools } from '../domains/operation.ts'
import { WantedModel, type Exactness, type ModelPin, type Target } from '../domains/values.ts'
import { DarkroomError, ensureError, workerError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { Catalogue } from '../models/catalogue.ts'
import type { Entry, Model } from '../models/entry.ts'
import type { Attempt, AttemptPort, Checkpoint } from '../engine/attempt.ts'
import {
  isPythonStep,
  type CheckpointGiven,
  type CheckpointMade,
  type FileGiven,
  type FileMade,
  type WorkAction,
} from './python/protocol.ts'
import type { Call, Outcome } from './python/call.ts'
import type { PythonChild } from './python/supervisor.ts'
import { modelError } from '../models/errors.ts'

/** Thrown through the operation when the attempt was asked to stop and gives its step back; it is no failure. */
export class Released extends Error {
  readonly checkpoint: Checkpoint | undefined
  constructor(checkpoint: Checkpoint | undefined) {
    super('the attempt gave its step back')
    this.checkpoint = checkpoint
  }
}

export interface ToolsOptions {
  attempt: Attempt
  port: AttemptPort
  artifacts: ArtifactStore
  child: PythonChild
  exactness: Exactness
  device: DeviceTools
  models: Catalogue
  /** The attempt's own folder; made when the first file is written, removed by `close`. */
  folder: string
  /** Room that its files need there, and in the artifact store, bytes. */
  fileBytes: number
  log: Logger
}

/** Why an attempt must end at once. */
export type Stop = 'timeout' | 'lost' | 'cancel' | 'drain'

/** More models than a child holds. */
const everyModel = 1000

const modelOf = (id: string, { path, identity, drawing }: Entry): Model => {
  if (!drawing) throw modelError('missing', `model ${id} does not draw`)
  return { ...drawing, id, path, bodyHash: identity?.bodyHash ?? null }
}

/** @throws DarkroomError `model.missing` when it has not been hashed */
function pinned(id: string, entry: Entry): Model & ModelPin {
  const { bodyHash, ...model } = modelOf(id, entry)
  if (bodyHash === null) throw modelError('missing', `model ${id} has not been hashed`)
  return { ...model, bodyHash }
}
/** How long the checkpoint of a pause or drain is tried to be kept, and how often, ms. */
const keepLastMs = 5000
const keepAgainMs = 500

/** Progress is published at most once in so many ms; the last call's always is. */
const minProgressMs = 200

export class AttemptTools implements Tools {
  readonly artifacts: ArtifactStore
  readonly exactness: Exactness
  /** Artifacts that the commit of the result will name. */
  readonly kept: { group: 'references' | 'scratch'; sha256: string }[] = []
  stats: Record<string, unknown> = {}
  readonly #options: ToolsOptions
  readonly #compensations: (() => Promise<void>)[] = []
  #call: Call<WorkAction> | undefined
  #isPaused = false
  #stopped: Stop | undefined
  /** Made when it is asked for: most steps end without. */
  #stop: AbortController | undefined
  #hasFolder = false
  #lastProgress = -Infinity
  /** Call of the last checkpoint that counts. */
  #safe: number | undefined
  /** Checkpoints are recorded one after another, beside the work. */
  #recording: Promise<void> = Promise.resolve()

  constructor(options: ToolsOptions) {
    this.#options = options
    this.artifacts = options.artifacts
    this.exactness = options.exactness
  }

  get signal(): AbortSignal {
    this.#stop ??= new AbortController()
    if (this.#stopped) this.#stop.abort(this.#stopped)
    return this.#stop.signal
  }

  get stopped(): Stop | undefined {
    return this.#stopped
  }

  /** Whether its outcome is not delivered: its session was cancelled, or another attempt has the step. */
  get isAbandoned(): boolean {
    return this.#stopped === 'lost' || this.#stopped === 'cancel'
  }

  /** Ends what runs. The first reason stays. */
  stop(reason: Stop): void {
    if (this.#stopped) return
    this.#stopped = reason
    this.#stop?.abort(reason)
    this.#call?.cancel()
  }

  /** Asks the operation to stop at its next call; one without checkpoints runs to its end. */
  pause(): void {
    this.#isPaused = true
    this.#call?.pause()
  }

  get sessionId(): string {
    return this.#options.attempt.sessionId
  }

  device(target: Target): DeviceTools {
    const { device } = this.#options
    if (target.epoch === device.epoch && target.worker === device.worker) return device
    throw deviceLost(`worker ${target.worker} of ${target.device} is gone, and what it held`)
  }

  onAbandoned(act: () => Promise<void>): void {
    this.#compensations.push(act)
  }

  /** The result is abandoned: compensates for what it would have named, the latest first. */
  async compensate(): Promise<void> {
    for (const act of this.#compensations.toReversed())
      await act().catch((error: unknown) =>
        this.#options.log.debug({ step: this.#options.attempt.stepKey, err: error }, 'an abandoned result was not compensated for'),
      )
  }

  async keep(bytes: Uint8Array, kind: ArtifactKind): Promise<string> {
    const sha256 = await this.#put(bytes, kind)
    this.kept.push({ group: kind === 'image' ? 'references' : 'scratch', sha256 })
    return sha256
  }

  async model(wanted: WantedModel): Promise<Model> {
    return modelOf(wanted.id, await this.#options.models.here(wanted))
  }

  async hashedModel(id: string): Promise<Model & ModelPin> {
    return this.#hashed(id).then((entry) => pinned(id, entry))
  }

  #hashed(id: string): Promise<Entry> {
    const megabytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20)
    const tell = (done: number, total: number): void => this.progress({ stage: 'hash', call: megabytes(done), calls: megabytes(total) })
    return this.#options.models.hashed(id, tell, this.signal)
  }

  progress(progress: StepProgress): void {
    const now = performance.now()
    if (now - this.#lastProgress < minProgressMs && progress.call !== progress.calls) return
    this.#lastProgress = now
    this.#options.port
      .progress(this.#options.attempt, { ...progress, checkpoint: this.#safe })
      .catch((error: unknown) => this.#options.log.debug({ err: error }, 'progress was not published'))
  }

  async note(text: string): Promise<void> {
    await this.#options.port.log(this.#options.attempt, text)
  }

  async python(input: Record<string, unknown>, files: Record<string, string | null>): Promise<PythonResult> {
    const { attempt, folder } = this.#options
    if (!isPythonStep(attempt.step)) throw workerError('action_unknown', `${attempt.step} has no part in Python`)
    const model = await this.#ensure(WantedModel.parse(input['model']))
    if (this.#isPaused) throw new Released(undefined)

    this.#hasFolder = true
    await onDisk(folder, mkdir(folder, { recursive: true, mode: 0o700 }))
    const data = {
      sessionId: attempt.sessionId,
      dir: folder,
      input: { ...input, model },
      files: await this.#lay(files),
      checkpoint: await this.#layCheckpoint(),
    }
    const call = this.#options.child.start(attempt.step, data, {
      progress: (progress) => this.progress(progress),
      checkpoint: (made) => {
        this.#recording = this.#recording.then(() => this.#record(made))
      },
    })
    const outcome = await this.#finish(call)
    if (outcome.type === 'released') throw new Released(outcome.checkpoint ? await this.#storeLast(outcome.checkpoint) : undefined)
    this.stats = outcome.stats
    const kept = await Promise.all(Object.entries(outcome.files).map(async ([name, file]) => [name, await this.#keepFile(file)] as const))
    return { output: outcome.output, files: Object.fromEntries(kept) }
  }

  /** Makes the model resident; the child then holds what the pin says, or nothing of that name. */
  async #ensure(wanted: WantedModel): Promise<{ id: string; bodyHash: string; path: string; family: Model['family'] }> {
    const { child, models } = this.#options
    const entry = wanted.bodyHash === null ? await this.#hashed(wanted.id) : await models.here(wanted)
    const { bodyHash, path, family } = pinned(wanted.id, entry)
    const model = { id: wanted.id, bodyHash, path, family }
    await this.#requireRoom()
    const loading = { progress: (progress: StepProgress) => this.progress({ ...progress, stage: 'load' }) }
    const outcome = await this.#finish(child.start('model.ensure', { model }, loading))
    const wasResident = outcome.type === 'result' && (outcome.output as { resident: boolean }).resident
    if (wasResident || outcome.type !== 'result' || (await models.isAsKnown(entry))) return model
    // It has loaded other bytes under this name.
    await child.start('memory.trim', { idleModels: everyModel }).outcome
    throw modelError('missing', `the files of model ${model.id} changed while they were loaded, and are looked at again`)
  }

  /**
   * Before the work, so that none is done whose tensors and checkpoints nobody can keep.
   * @throws DarkroomError `disk.full`
   */
  async #requireRoom(): Promise<void> {
    const { artifacts, attempt, fileBytes, folder } = this.#options
    const why = `${attempt.step} of session ${attempt.sessionId}`
    await requireRoom(dirname(folder), fileBytes, why)
    await artifacts.requireRoom(fileBytes, why)
  }

  async #finish(call: Call<WorkAction>): Promise<Outcome<WorkAction>> {
    this.#call = call
    if (this.#stopped) call.cancel()
    else if (this.#isPaused) call.pause()
    try {
      return await call.outcome
    } catch (error) {
      // It did not stop in time, and its process was ended: the step goes on from its last checkpoint.
      if (this.#isPaused && !this.#stopped && error instanceof DarkroomError && error.code === 'worker.overran')
        throw new Released(undefined)
      throw error
    } finally {
      this.#call = undefined
      // A failed attempt too leaves the checkpoints it has made to the next one.
      await this.#recording
    }
  }

  /**
   * Writes input artifacts as files of the attempt. One whose bytes are gone or broken is left out, and the child does
   * without.
   */
  async #lay(files: Record<string, string | null>): Promise<Record<string, FileGiven>> {
    const laid: Record<string, FileGiven> = {}
    for (const [name, sha256] of Object.entries(files)) {
      if (sha256 === null) continue
      const bytes = await this.artifacts.read(sha256).catch((error: unknown) => ensureError(error, 'artifact.missing'))
      if (bytes instanceof DarkroomError) {
        this.#options.log.warn(
          { step: this.#options.attempt.stepKey, file: name, code: bytes.code },
          'an input tensor is missing or broken',
        )
        continue
      }
      const path = join(this.#options.folder, `${name}.in`)
      await onDisk(path, writeFile(path, bytes, { mode: 0o600 }))
      laid[name] = { path, sha256 }
    }
    return laid
  }

  /** The newest checkpoint whose bytes are whole; a broken one falls back to the one before, then to call 0. */
  async #layCheckpoint(): Promise<CheckpointGiven | null> {
    for (const { sha256, call } of this.#options.attempt.checkpoints) {
      const bytes = await this.artifacts.read(sha256).catch((error: unknown) => ensureError(error, 'artifact.missing'))
      if (bytes instanceof DarkroomError) {
        await this.note(`the checkpoint at call ${call} is not used: ${bytes.message}`)
        continue
      }
      const path = join(this.#options.folder, 'checkpoint.in')
      await onDisk(path, writeFile(path, bytes, { mode: 0o600 }))
      return { path, sha256, call }
    }
    return null
  }

  async #record(made: CheckpointMade): Promise<void> {
    try {
      const isRecorded = await this.#options.port.checkpoint(this.#options.attempt, await this.#store(made))
      if (isRecorded) this.#safe = made.call
      // The store has it: a long step would fill the folder with its checkpoints.
      await rm(made.path, { force: true })
    } catch (error) {
      // A checkpoint that could not be kept costs time after a crash, not the picture.
      this.#options.log.warn({ step: this.#options.attempt.stepKey, err: error }, 'a checkpoint was not recorded')
    }
  }

  /**
   * The checkpoint of a pause or drain. One that cannot be kept is tried for a while; then the step goes on from the
   * last one that was, which costs time and not the session.
   */
  async #storeLast(made: CheckpointMade): Promise<Checkpoint | undefined> {
    const until = performance.now() + keepLastMs
    for (;;) {
      try {
        return await this.#store(made)
      } catch (error) {
        const { stepKey } = this.#options.attempt
        if (this.isAbandoned || performance.now() > until) {
          this.#options.log.warn(
            { step: stepKey, call: made.call, err: error },
            'the last checkpoint was not kept; the step goes on from the one before',
          )
          return undefined
        }
      }
      await delay(keepAgainMs)
    }
  }

  async #store(made: CheckpointMade): Promise<Checkpoint> {
    const { sha256, bytes, call } = made
    // A pause may name the one that was recorded last.
    if (call !== this.#safe) await this.#putFile(made)
    return { sha256, bytes, call }
  }

  async #keepFile(file: FileMade): Promise<string> {
    const sha256 = await this.#putFile(file)
    this.kept.push({ group: 'scratch', sha256 })
    return sha256
  }

  async #putFile(file: FileMade): Promise<string> {
    const sha256 = await this.#put(await readFile(file.path), 'scratch')
    if (sha256 !== file.sha256) throw workerError('protocol', `the child's file ${file.path} has SHA-256 ${sha256}, it said ${file.sha256}`)
    return sha256
  }

  async #put(bytes: Uint8Array, kind: ArtifactKind): Promise<string> {
    const { attempt, port } = this.#options
    port.at?.('artifact.before', attempt.sessionId)
    const sha256 = await this.artifacts.put(bytes, kind)
    port.at?.('artifact.after', attempt.sessionId)
    return sha256
  }

  /** Why the attempt failed, when its folder was removed under it; whatever then failed says less. */
  get lostFolder(): DarkroomError | undefined {
    if (!this.#hasFolder || existsSync(this.#options.folder)) return undefined
    return workerError('folder_gone', `the folder ${this.#options.folder} of this attempt was removed while it ran`)
  }

  /** Waits for checkpoints that are being recorded, and removes the attempt's folder. */
  async close(): Promise<void> {
    await this.#recording
    if (this.#hasFolder) await rm(this.#options.folder, { recursive: true, force: true })
  }
}
