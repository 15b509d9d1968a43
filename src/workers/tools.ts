/** The tools of one attempt: the bridge between its operation, the artifact store and the Python child. */
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { pictureType } from '../artifacts/picture.ts'
import { sha256Of, type ArtifactKind, type ArtifactStore } from '../artifacts/store.ts'
import { thumbnailOfFile } from '../artifacts/thumbnail.ts'
import { onDisk, requireRoom } from '../disk.ts'
import { deviceLost, type DeviceTools, type PythonResult, type ShelfTools, type StepProgress, type Tools } from '../domains/operation.ts'
import { MemoryProfile, type Exactness, type ModelPin, type Target, type WantedModel } from '../domains/values.ts'
import { DarkroomError, workerError } from '../errors.ts'
import { allDone } from '../promises.ts'
import type { Logger } from '../log.ts'
import type { Catalogue } from '../models/catalogue.ts'
import { modelOf, pinned, type Entry, type Model } from '../models/entry.ts'
import type { Attempt, AttemptPort, Checkpoint } from '../engine/attempt.ts'
import { isPythonStep, type CheckpointMade, type FileMade, type ModelRef, type Stats, type WorkAction } from './python/protocol.ts'
import type { Call, Outcome } from './python/call.ts'
import { exactnessWith } from './exactness.ts'
import type { ModelCache } from './device/model-cache.ts'
import type { Convert } from './python/convert.ts'
import { besideHere } from './beside.ts'
import { layCheckpoint, layFiles } from './laying.ts'
import { Previews } from './previews.ts'
import { Released } from './released.ts'
import { makeResident, withRefs } from './residency.ts'
import { inBytes, shelfTools } from './shelf-tools.ts'
import type { PythonChild } from './python/supervisor.ts'

export interface ToolsOptions {
  attempt: Attempt
  port: AttemptPort
  artifacts: ArtifactStore
  child: PythonChild
  exactness: Exactness
  device: DeviceTools
  cache: ModelCache
  /** Model folder that gets what is made here. */
  storesIn: string
  /** Told that Python has answered with a result, whose files are whole: the device does nothing more for the step. */
  onLeft?: () => void
  /** Told how the work in Python went, and with which model. */
  onStats(stats: Stats, model: ModelRef): void
  models: Catalogue
  convert: Convert
  /** The attempt's own folder; made when the first file is written, removed by `close`. */
  folder: string
  /** Room that its files need there, and in the artifact store, bytes. */
  fileBytes: number
  log: Logger
}

/** Why an attempt must end at once. */
export type Stop = 'timeout' | 'lost' | 'cancel' | 'drain'

/** How long the checkpoint of a pause or drain is tried to be kept, and how often, ms. */
const keepLastMs = 5000
const keepAgainMs = 500

/** Progress is published at most once in so many ms; the last call's always is. */
const minProgressMs = 200

export class AttemptTools implements Tools {
  readonly artifacts: ArtifactStore
  readonly exactness: Exactness
  /** Artifacts that the commit of the result will name. */
  readonly kept: { group: 'references' | 'scratch'; sha256: string; bytes: number }[] = []
  stats: Record<string, unknown> = {}
  readonly #options: ToolsOptions
  readonly #compensations: (() => Promise<void>)[] = []
  #call: Call<WorkAction> | undefined
  #isPaused = false
  /** Made when it is asked for, as `#stop`. */
  #pause: AbortController | undefined
  #stopped: Stop | undefined
  /** Made when it is asked for: most steps end without. */
  #stop: AbortController | undefined
  #hasFolder = false
  #lastProgress = -Infinity
  /** Call of the last checkpoint that counts. */
  #safe: number | undefined
  readonly #previews: Previews
  /** Checkpoints are recorded one after another, beside the work. */
  #recording: Promise<void> = Promise.resolve()

  constructor(options: ToolsOptions) {
    this.#options = options
    this.artifacts = options.artifacts
    this.exactness = options.exactness
    this.#previews = new Previews(options)
  }

  get shelf(): ShelfTools {
    return shelfTools({
      ...this.#options,
      signal: () => this.signal,
      progress: (progress) => this.progress(progress),
      makeFolder: () => this.#makeFolder(),
    })
  }

  exactnessWith(settings: Record<string, boolean | string>): Exactness {
    return exactnessWith(this.exactness, settings)
  }

  get signal(): AbortSignal {
    this.#stop ??= new AbortController()
    if (this.#stopped) this.#stop.abort(this.#stopped)
    return this.#stop.signal
  }

  /** Aborted by `pause`. */
  get paused(): AbortSignal {
    this.#pause ??= new AbortController()
    if (this.#isPaused) this.#pause.abort()
    return this.#pause.signal
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
    this.#pause?.abort()
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

  async keep(bytes: Uint8Array, kind: ArtifactKind, thumbnail?: Promise<Uint8Array>): Promise<string> {
    const sha256 = sha256Of(bytes)
    const isPicture = kind === 'image' && pictureType(bytes) !== undefined
    await allDone([this.#put(bytes, kind, sha256), isPicture && this.#keepThumbnail(sha256, thumbnail ?? thumbnailOfFile(bytes))])
    this.kept.push({ group: kind === 'image' ? 'references' : 'scratch', sha256, bytes: bytes.byteLength })
    return sha256
  }

  /** Costs no picture when it fails: that one is whole, and can be seen without. */
  async #keepThumbnail(sha256: string, thumbnail: Promise<Uint8Array>): Promise<void> {
    await thumbnail
      .then((bytes) => this.artifacts.putThumbnail(sha256, bytes))
      .catch((error: unknown) => this.note(`picture ${sha256} has no thumbnail: ${(error as Error).message}`))
  }

  async withhold(png: Uint8Array, seconds: number): Promise<string> {
    if (seconds === 0) return sha256Of(png)
    const sha256 = await this.#put(png, 'image')
    await this.#options.port.withhold(sha256, seconds)
    return sha256
  }

  async model(wanted: WantedModel): Promise<Model> {
    return modelOf(wanted.id, await this.#options.models.here(wanted))
  }

  async hashedModel(id: string): Promise<Model & ModelPin> {
    return this.#hashed({ id }).then((entry) => pinned(id, entry))
  }

  #hashed({ id, kind }: Pick<WantedModel, 'id' | 'kind'>): Promise<Entry> {
    const inMegabytes = inBytes('hash', (progress) => this.progress(progress))
    return this.#options.models.hashed({ id, kind }, inMegabytes, this.signal)
  }

  async #makeFolder(): Promise<string> {
    const { folder } = this.#options
    this.#hasFolder = true
    await onDisk(folder, mkdir(folder, { recursive: true, mode: 0o700 }))
    return folder
  }

  progress(progress: StepProgress): void {
    const now = performance.now()
    if (now - this.#lastProgress < minProgressMs && progress.call !== progress.calls) return
    this.#lastProgress = now
    this.#options.port
      .progress(this.#options.attempt, { ...progress, checkpoint: this.#safe, preview: this.#previews.call })
      .catch((error: unknown) => this.#options.log.debug({ err: error }, 'progress was not published'))
  }

  async note(text: string): Promise<void> {
    await this.#options.port.log(this.#options.attempt, text)
  }

  #tell(text: string): void {
    this.note(text).catch((error: unknown) => this.#options.log.debug({ err: error }, 'a note was not written'))
  }

  async python(input: Record<string, unknown>, files: Record<string, string | null>): Promise<PythonResult> {
    const { attempt, folder } = this.#options
    if (!isPythonStep(attempt.step)) throw workerError('action_unknown', `${attempt.step} has no part in Python`)
    const memoryProfile = MemoryProfile.optional().parse(input['memoryProfile'])
    const residency = makeResident(attempt.models, {
      ...this.#options,
      memoryProfile,
      hashed: (wanted) => this.#hashed(wanted),
      requireRoom: () => this.#requireRoom(),
      finish: (ensuring) => this.#finish(ensuring),
      progress: (progress) => this.progress(progress),
      note: (text) => this.#tell(text),
    })
    const folderMade = this.#makeFolder()
    // Files come to their places while the child says that it has the models.
    const [resident, beside, laid, checkpoint] = await allDone([
      residency,
      besideHere(input, this.#options.models),
      folderMade.then(() => layFiles(files, this.#options)),
      folderMade.then(() => layCheckpoint(this.#options, (text) => this.note(text))),
    ] as const)
    if (this.#isPaused) throw new Released(undefined)

    const data = {
      sessionId: attempt.sessionId,
      dir: folder,
      input: { ...withRefs(input, resident), ...beside },
      files: laid,
      checkpoint,
    }
    const call = this.#options.child.start(attempt.step, data, {
      progress: (progress) => this.progress(progress),
      note: (text) => this.#tell(text),
      preview: (made) => this.#previews.take(made),
      checkpoint: (made) => {
        this.#recording = this.#recording.then(() => this.#record(made))
      },
    })
    const outcome = await this.#finish(call)
    if (outcome.type === 'released') throw new Released(outcome.checkpoint ? await this.#storeLast(outcome.checkpoint) : undefined)
    const { child, onLeft } = this.#options
    // One that dies with its last frame would cost the next step a try.
    if (onLeft) child.ping().then(onLeft, () => undefined)
    const { models, ...load } = resident
    const [model] = models
    this.stats = { ...outcome.stats, ...(model && { modelFormat: model.format, wasResident: load.wasResident }) }
    if (model) this.#options.onStats(outcome.stats, model.ref)
    const kept = await Promise.all(Object.entries(outcome.files).map(async ([name, file]) => [name, await this.#keepFile(file)] as const))
    return { output: outcome.output, files: Object.fromEntries(kept), bodyHash: model?.bodyHash ?? null, load }
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

  async #finish<A extends WorkAction>(call: Call<A>): Promise<Outcome<A>> {
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
    this.kept.push({ group: 'scratch', sha256, bytes: file.bytes })
    return sha256
  }

  async #putFile(file: FileMade): Promise<string> {
    const sha256 = await this.#put(await readFile(file.path), 'scratch')
    if (sha256 !== file.sha256) throw workerError('protocol', `the child's file ${file.path} has SHA-256 ${sha256}, it said ${file.sha256}`)
    return sha256
  }

  async #put(bytes: Uint8Array, kind: ArtifactKind, sha256 = sha256Of(bytes)): Promise<string> {
    const { attempt, port } = this.#options
    port.at?.('artifact.before', attempt.sessionId)
    await this.artifacts.put(bytes, kind, sha256)
    port.at?.('artifact.after', attempt.sessionId)
    return sha256
  }

  /** Why the attempt failed, when its folder was removed under it; whatever then failed says less. */
  get lostFolder(): DarkroomError | undefined {
    if (!this.#hasFolder || existsSync(this.#options.folder)) return undefined
    return workerError('folder_gone', `the folder ${this.#options.folder} of this attempt was removed while it ran`)
  }

  /** Waits for checkpoints and previews under way, and removes the attempt's folder. */
  async close(): Promise<void> {
    await Promise.all([this.#recording, this.#previews.shown])
    if (this.#hasFolder) await rm(this.#options.folder, { recursive: true, force: true })
  }
}
