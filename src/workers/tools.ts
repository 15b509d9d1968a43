/** The tools of one attempt: the bridge between its operation, the artifact store and the Python child. */
import { existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { pictureType } from '../artifacts/picture.ts'
import { sha256Of, type ArtifactKind, type ArtifactStore, type Writing } from '../artifacts/store.ts'
import { thumbnailOfFile } from '../artifacts/thumbnail.ts'
import { onDisk, requireRoom } from '../disk.ts'
import {
  deviceLost,
  type DeviceTools,
  type OpenFile,
  type PythonResult,
  type ShelfTools,
  type StepProgress,
  type Tools,
} from '../domains/operation.ts'
import { MemoryProfile, type Exactness, type ModelPin, type Target, type WantedModel } from '../domains/values.ts'
import { DarkroomError, workerError } from '../errors.ts'
import { allDone } from '../promises.ts'
import type { Logger } from '../log.ts'
import type { Catalogue } from '../models/catalogue.ts'
import { modelOf, pinned, type Entry, type Model } from '../models/entry.ts'
import type { Attempt, AttemptPort } from '../engine/attempt.ts'
import { isPythonStep, type ModelRef, type Stats, type WorkAction } from './python/protocol.ts'
import { diedBefore, type Call, type Outcome } from './python/call.ts'
import { exactnessWith } from './exactness.ts'
import type { ModelCache } from './device/model-cache.ts'
import type { Convert } from './python/convert.ts'
import { besideHere } from './beside.ts'
import { layCheckpoint, layFiles } from './laying.ts'
import { Checkpoints } from './checkpoints.ts'
import { MadeFiles } from './made-files.ts'
import { Previews } from './previews.ts'
import { Released } from './released.ts'
import { noteHad, requireUnchanged, residentFor, withRefs, type Resident, type ResidencyParts } from './residency.ts'
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
  /** Model folder that gets what is made here: the user's last, which come after those that the product brings. */
  storesIn: string
  /** Told how the work in Python went, and with which model. */
  onStats: (attempt: Attempt, stats: Stats, model: ModelRef) => void
  models: Catalogue
  convert: Convert
  /** The attempt's own folder; made when the first file is written, removed by `close`. */
  folder: string
  /** Room that its files need there, and in the artifact store, bytes. */
  fileBytes: number
  log: Logger
}

/** How an attempt begins on its worker. */
export interface Beginning {
  /**
   * Whether it gets its lease, of an attempt that has begun before the commit that gives it that: until then nothing of
   * it can be recorded.
   */
  leased?: Promise<boolean> | undefined
  /** What the session's last step has made and had on this worker, of one that follows it here at once. */
  last?: Pick<AttemptTools, 'made' | 'resident'> | undefined
  /** Reserves the device, for the whole attempt. @throws DarkroomError `memory.*`; Released, Unreserved */
  reserve: () => Promise<void>
  /** Told that Python has answered with a result, whose files are whole: the device does nothing more for the step. */
  onLeft?: (() => void) | undefined
}

/** Why an attempt must end at once. */
export type Stop = 'timeout' | 'lost' | 'cancel' | 'drain'

/** Progress is published at most once in so many ms; the last call's always is. */
const minProgressMs = 200

export class AttemptTools implements Tools {
  readonly artifacts: ArtifactStore
  readonly exactness: Exactness
  /** Artifacts that the commit of the result will name. */
  readonly kept: { group: 'references' | 'scratch'; sha256: string; bytes: number }[] = []
  stats: Record<string, unknown> = {}
  /** Models that its work in Python had. */
  resident: Resident | undefined
  readonly #options: ToolsOptions
  readonly #beginning: Beginning
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
  /** What comes from its work in Python; undefined before that. */
  made: MadeFiles | undefined
  #previews: Previews | undefined
  #checkpoints: Checkpoints | undefined
  #reserved: Promise<void> | undefined
  /** What makes and keeps them, once the attempt is over. */
  readonly #thumbnails: (() => Promise<void>)[] = []

  constructor(options: ToolsOptions, beginning: Beginning) {
    this.#options = options
    this.#beginning = beginning
    this.artifacts = options.artifacts
    this.exactness = options.exactness
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

  async read(sha256: string): Promise<Buffer> {
    return (await this.#beginning.last?.made?.read(sha256)) ?? this.artifacts.read(sha256)
  }

  async open(sha256: string): Promise<OpenFile | undefined> {
    return this.#beginning.last?.made?.open(sha256)
  }

  async keep(bytes: Uint8Array | Writing, kind: ArtifactKind): Promise<string> {
    const sha256 = await this.#put(bytes, kind)
    if (kind === 'image') this.#thumbnails.push(() => this.#keepThumbnail(sha256, bytes))
    this.kept.push({ group: kind === 'image' ? 'references' : 'scratch', sha256, bytes: bytes.byteLength })
    return sha256
  }

  /** Costs no picture when it fails: that one is whole, and its thumbnail is made when it is asked for. */
  async #keepThumbnail(sha256: string, bytes: Uint8Array | Writing): Promise<void> {
    const picture = bytes instanceof Uint8Array ? bytes : bytes.whole()
    if (pictureType(picture) === undefined) return
    await thumbnailOfFile(picture)
      .then((thumbnail) => this.artifacts.putThumbnail(sha256, thumbnail))
      .catch((error: unknown) => this.#options.log.warn({ picture: sha256, err: error }, 'a picture has no thumbnail yet'))
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
      .progress(this.#options.attempt, { ...progress, checkpoint: this.#checkpoints?.safe, preview: this.#previews?.call })
      .catch((error: unknown) => this.#options.log.debug({ err: error }, 'progress was not published'))
  }

  /** Does not hold up an attempt that waits for its lease. */
  async note(text: string): Promise<void> {
    if (this.#beginning.leased) this.#tell(text)
    else await this.#write(text)
  }

  #tell(text: string): void {
    this.#write(text).catch((error: unknown) => this.#options.log.debug({ err: error }, 'a note was not written'))
  }

  async #write(text: string): Promise<void> {
    if ((await this.#beginning.leased) !== false) await this.#options.port.log(this.#options.attempt, text)
  }

  /** Reserves the device for the attempt, once; what it does there comes after that. @throws as `Beginning.reserve` */
  reserve(): Promise<void> {
    return (this.#reserved ??= this.#beginning.reserve())
  }

  async python(input: Record<string, unknown>, files: Record<string, string | null>): Promise<PythonResult> {
    const { attempt, folder } = this.#options
    if (!isPythonStep(attempt.step)) throw workerError('action_unknown', `${attempt.step} has no part in Python`)
    const memoryProfile = MemoryProfile.optional().parse(input['memoryProfile'])
    const parts: ResidencyParts = {
      ...this.#options,
      memoryProfile,
      hashed: (wanted) => this.#hashed(wanted),
      requireRoom: () => this.#requireRoom(),
      finish: (ensuring) => this.#finish(ensuring),
      progress: (progress) => this.progress(progress),
      note: (text) => this.#tell(text),
    }
    const made = (this.made ??= new MadeFiles(({ path, sha256 }) => this.#atPoints(() => this.artifacts.putFile(path, sha256))))
    const previews = (this.#previews ??= new Previews(this.#options))
    const checkpoints = (this.#checkpoints ??= new Checkpoints({ ...this.#options, leased: this.#beginning.leased, made }))
    const folderMade = this.#makeFolder()
    const laying = { ...this.#options, last: this.#beginning.last?.made, read: (sha256: string) => this.read(sha256) }
    // Files come to their places while the device is reserved, and the child says that it has the models.
    const [resident, beside, laid, checkpoint] = await allDone([
      this.reserve().then(() => residentFor(attempt.models, parts, this.#beginning.last?.resident)),
      besideHere(input, this.#options.models),
      folderMade.then(() => layFiles(files, laying)),
      folderMade.then(() => layCheckpoint(laying, (text) => this.note(text))),
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
      preview: (shown) => previews.take(shown),
      checkpoint: (taken) => checkpoints.take(taken),
    })
    const outcome = await this.#finish(call).catch((error: unknown) => {
      // It had died with its last frame, of the step before.
      throw this.#beginning.last && diedBefore(call, error) ? new Released(undefined, 'child') : error
    })
    if (outcome.type === 'released')
      throw new Released(outcome.checkpoint ? await checkpoints.storeLast(outcome.checkpoint, () => this.isAbandoned) : undefined)
    this.resident = resident
    // It had let go of one that was there.
    const hasLoaded = (outcome.stats.loadS ?? 0) > 0
    if (hasLoaded) await requireUnchanged(resident, parts)
    noteHad(call, { resident, memoryProfile })
    const { onLeft } = this.#beginning
    // One that dies with its last frame would cost the next step a try.
    if (onLeft) this.#options.child.ping().then(onLeft, () => undefined)
    const { models, childPid: _, ...load } = resident
    const [model] = models
    this.stats = { ...outcome.stats, ...(model && { modelFormat: model.format, wasResident: load.wasResident && !hasLoaded }) }
    if (model) this.#options.onStats(attempt, outcome.stats, model.ref)
    for (const { sha256, bytes } of Object.values(outcome.files)) this.kept.push({ group: 'scratch', sha256, bytes })
    return { output: outcome.output, files: made.keep(outcome.files), bodyHash: model?.bodyHash ?? null, load }
  }

  /**
   * Before the work, so that none is done whose tensors and checkpoints nobody can keep.
   * @throws DarkroomError `disk.full`
   */
  async #requireRoom(): Promise<void> {
    const { artifacts, attempt, fileBytes, folder } = this.#options
    const why = `${attempt.step} of session ${attempt.sessionId}`
    await allDone([requireRoom(dirname(folder), fileBytes, why), artifacts.requireRoom(fileBytes, why)])
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
      await this.#checkpoints?.recorded
    }
  }

  #put(bytes: Uint8Array | Writing, kind: ArtifactKind): Promise<string> {
    return this.#atPoints(() => this.artifacts.put(bytes, kind))
  }

  async #atPoints<T>(put: () => Promise<T>): Promise<T> {
    const { attempt, port } = this.#options
    port.at?.('artifact.before', attempt.sessionId)
    const done = await put()
    port.at?.('artifact.after', attempt.sessionId)
    return done
  }

  /** Why the attempt failed, when its folder was removed under it; whatever then failed says less. */
  get lostFolder(): DarkroomError | undefined {
    if (!this.#hasFolder || existsSync(this.#options.folder)) return undefined
    return workerError('folder_gone', `the folder ${this.#options.folder} of this attempt was removed while it ran`)
  }

  /**
   * Makes thumbnails, waits for checkpoints and previews under way, and removes the attempt's folder; undefined for one
   * that has none of these.
   */
  close(): Promise<void> | undefined {
    return this.#hasFolder || this.#thumbnails.length > 0 ? this.#settle() : undefined
  }

  async #settle(): Promise<void> {
    const thumbnails = this.#thumbnails.map((make) => make())
    await Promise.all([...thumbnails, this.#checkpoints?.recorded, this.#previews?.shown, this.made?.settled()])
    await rm(this.#options.folder, { recursive: true, force: true })
  }
}
