/** What a client asks of devices, memory and models. */
import { nothing } from './answers.ts'
import type { Http } from './http.ts'
import { allocationOf, deviceOf, modelOf, queryOf } from './paths.ts'
import type {
  Allocation,
  AllocationList,
  Annotate,
  Annotation,
  DefaultDevice,
  Device,
  DeviceEventPage,
  DeviceHistory,
  DeviceMemory,
  DeviceStatus,
  MemoryAnalytics,
  MemoryLeaks,
  MemoryPool,
  MemoryRecommendation,
  Compatible,
  Model,
  ModelFilter,
  OfKind,
  ModelPage,
  ModelStatus,
  PictureShape,
  ResidentModels,
} from './types.ts'

export abstract class FarmClient {
  protected readonly http: Http

  constructor(http: Http) {
    this.http = http
  }

  // ---- devices ----

  /** Devices that have a worker now. */
  async devices(): Promise<Device[]> {
    return (await this.http.json<{ devices: Device[] }>('GET', '/v1/devices')).devices
  }

  /** By its id, or `cuda:0` while that means one device only. @throws Problem `device.unknown` */
  device(id: string): Promise<Device> {
    return this.http.json('GET', deviceOf(id))
  }

  deviceStatus(id: string): Promise<DeviceStatus> {
    return this.http.json('GET', `${deviceOf(id)}/status`)
  }

  /** Of the last day, a sample a minute. */
  deviceHistory(id: string): Promise<DeviceHistory> {
    return this.http.json('GET', `${deviceOf(id)}/history`)
  }

  deviceMemory(id: string): Promise<DeviceMemory> {
    return this.http.json('GET', `${deviceOf(id)}/memory`)
  }

  /** Events after the one numbered `after`, oldest first; without it the newest. Go on after `newest`. */
  deviceEvents(filter: { after?: number; device?: string; limit?: number } = {}): Promise<DeviceEventPage> {
    return this.http.json('GET', `/v1/devices/events${queryOf(filter)}`)
  }

  defaultDevice(): Promise<DefaultDevice> {
    return this.http.json('GET', '/v1/devices/default')
  }

  /** null: any device. @throws Problem `device.unknown` */
  setDefaultDevice(device: string | null): Promise<DefaultDevice> {
    return this.http.json('PUT', '/v1/devices/default', { body: { device } })
  }

  // ---- memory ----

  /** Every device, and behind those of a host its RAM. */
  async memory(): Promise<MemoryPool[]> {
    return (await this.http.json<{ pools: MemoryPool[] }>('GET', '/v1/memory')).pools
  }

  /** The caller's, and those of sessions it may see. */
  allocations(filter: { device?: string } = {}): Promise<AllocationList> {
    return this.http.json('GET', `/v1/memory/allocations${queryOf(filter)}`)
  }

  allocation(id: string): Promise<Allocation> {
    return this.http.json('GET', allocationOf(id))
  }

  async residentModels(filter: { device?: string } = {}): Promise<ResidentModels[]> {
    return (await this.http.json<{ devices: ResidentModels[] }>('GET', `/v1/memory/models${queryOf(filter)}`)).devices
  }

  async memoryAnalytics(filter: { device?: string } = {}): Promise<MemoryAnalytics[]> {
    return (await this.http.json<{ devices: MemoryAnalytics[] }>('GET', `/v1/memory/analytics${queryOf(filter)}`)).devices
  }

  async memoryRecommendations(filter: { device?: string } = {}): Promise<MemoryRecommendation[]> {
    const path = `/v1/memory/recommendations${queryOf(filter)}`
    return (await this.http.json<{ recommendations: MemoryRecommendation[] }>('GET', path)).recommendations
  }

  async memoryLeaks(filter: { device?: string } = {}): Promise<MemoryLeaks[]> {
    return (await this.http.json<{ devices: MemoryLeaks[] }>('GET', `/v1/memory/leaks${queryOf(filter)}`)).devices
  }

  // ---- models ----

  /** A page of what lies in the model folders of all hosts, usable or not. */
  models(filter: ModelFilter = {}): Promise<ModelPage> {
    return this.http.json('GET', `/v1/models${queryOf({ ...filter })}`)
  }

  /**
   * Of several kinds with one name the one that draws, else the one that is understood.
   * @throws Problem `model.ambiguous`
   */
  model(id: string, of: OfKind = {}): Promise<Model> {
    return this.http.json('GET', modelOf(id, of))
  }

  /** Where a model lies, where it is resident and how, what people say of it, and what it did where it was measured. */
  modelStatus(id: string, of: OfKind = {}): Promise<ModelStatus> {
    return this.http.json('GET', modelOf(id, of, 'status'))
  }

  /**
   * A thumbnail, WebP: of the picture beside the model's file, or of the newest that was drawn with it.
   * @throws Problem `model.no_picture`; why the file beside it is no picture
   */
  modelPicture(id: string, of: { kind?: Model['kind'] } = {}): Promise<Uint8Array> {
    return this.http.request(
      'GET',
      `${modelOf(id)}/picture${queryOf(of)}`,
      async (response) => new Uint8Array(await response.arrayBuffer()),
    )
  }

  /** Says this of a model from now on, in place of what was said before. @throws Problem `model.unhashed` */
  annotateModel(id: string, annotation: Annotate, of: OfKind = {}): Promise<Annotation> {
    return this.http.json('PUT', modelOf(id, of, 'annotation'), { body: annotation })
  }

  async removeAnnotation(id: string, of: OfKind = {}): Promise<void> {
    await this.http.request('DELETE', modelOf(id, of, 'annotation'), nothing)
  }

  /** On which devices a model draws a picture, what it takes there, and why not; without a shape, one of its own. */
  async compatible(id: string, picture: PictureShape & OfKind = {}): Promise<Compatible[]> {
    return (await this.http.json<{ devices: Compatible[] }>('GET', modelOf(id, picture, 'compatible'))).devices
  }

  /** Has every host look at its folders again; returns the ids of their shelves. */
  rescanModels(): Promise<{ shelves: string[] }> {
    return this.http.json('POST', '/v1/models/rescan')
  }
}
