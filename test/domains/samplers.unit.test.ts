/** What names mean: those of both user interfaces, older ones, and pairs. */
import { describe, expect, it } from 'vitest'
import {
  noSampler,
  noSchedule,
  samplerOf,
  samplers,
  scheduleOf,
  schedules,
  schedulesOf,
  settle,
  type SamplerName,
} from '../../src/domains/samplers.ts'
import { ImageRequest } from '../../src/domains/values.ts'

describe('a name', () => {
  it.each([
    ['euler', 'Euler'],
    ['k_euler', 'Euler'],
    ['sample_euler', 'Euler'],
    ['euler_ancestral', 'Euler a'],
    ['k_euler_a', 'Euler a'],
    ['EULER A', 'Euler a'],
    ['heun', 'Heun'],
    ['lms', 'LMS'],
    ['k_lms', 'LMS'],
    ['dpm_2', 'DPM2'],
    ['k_dpm_2', 'DPM2'],
    ['dpm_2_ancestral', 'DPM2 a'],
    ['k_dpm_2_a', 'DPM2 a'],
    ['dpmpp_2s_ancestral', 'DPM++ 2S a'],
    ['dpmpp_sde', 'DPM++ SDE'],
    ['dpmpp_sde_gpu', 'DPM++ SDE'],
    ['dpmpp_2m', 'DPM++ 2M'],
    ['DPM++2M', 'DPM++ 2M'],
    ['dpmpp_2m_sde_gpu', 'DPM++ 2M SDE'],
    ['dpmpp_2m_sde_heun', 'DPM++ 2M SDE Heun'],
    ['dpmpp_3m_sde', 'DPM++ 3M SDE'],
    ['ddim', 'DDIM'],
    ['ddpm', 'DDPM'],
    ['plms', 'PLMS'],
    ['pndm', 'PLMS'],
    ['lcm', 'LCM'],
    ['tcd', 'TCD'],
    ['uni_pc', 'UniPC'],
    ['uni_pc_bh2', 'UniPC'],
    ['deis', 'DEIS'],
    ['ipndm', 'iPNDM'],
    ['res_multistep', 'RES Multistep'],
    ['res_multistep_ancestral', 'RES Multistep a'],
    ['gradient_estimation', 'Gradient Estimation'],
    ['sa_solver', 'SA-Solver'],
  ])('%s is %s', (name, sampler) => expect(samplerOf(name)).toEqual({ sampler }))

  it.each([
    ['DPM++ 2M SDE Karras', 'DPM++ 2M SDE', 'Karras'],
    ['k_dpmpp_2m_sde_karras', 'DPM++ 2M SDE', 'Karras'],
    ['DPM2 a Karras', 'DPM2 a', 'Karras'],
    ['LMS Karras', 'LMS', 'Karras'],
    ['DPM++ 3M SDE Exponential', 'DPM++ 3M SDE', 'Exponential'],
    ['euler_sgm_uniform', 'Euler', 'SGM Uniform'],
  ])('%s is %s with %s', (name, sampler, schedule) => expect(samplerOf(name)).toEqual({ sampler, schedule }))

  it.each([
    ['karras', 'Karras'],
    ['sgm_uniform', 'SGM Uniform'],
    ['Uniform', 'Normal'],
    ['Align Your Steps', 'AYS'],
    ['align_your_steps', 'AYS'],
    ['beta', 'Beta'],
    ['automatic', 'Automatic'],
  ])('of a schedule: %s is %s', (name, schedule) => expect(scheduleOf(name)).toBe(schedule))

  it('of the table means itself, and no two mean one', () => {
    for (const name of samplers) expect(samplerOf(name)).toEqual({ sampler: name })
    for (const name of schedules) expect(scheduleOf(name)).toBe(name)
    expect(samplers.length - 1).toBeGreaterThanOrEqual(24)
  })

  it.each(['dpm_fast', 'dpm_adaptive', 'Restart', 'heunpp2', 'euler_cfg_pp', 'er_sde', 'seeds_2', '', '__proto__', 'Karras'])(
    '%j is none, and the refusal names the nearest',
    (name) => {
      expect(samplerOf(name)).toBeUndefined()
      const [, nearest = ''] = /the nearest is ([^;]+);/.exec(noSampler(name)) ?? []
      expect(samplers).toContain(nearest)
    },
  )

  it.each(['ddim_uniform', 'kl_optimal', 'linear_quadratic', 'turbo', '', 'constructor'])('of a schedule: %j is none', (name) => {
    expect(scheduleOf(name)).toBeUndefined()
    expect(noSchedule(name)).toMatch(/the nearest is (Automatic|Karras|Exponential|Beta|SGM Uniform|Simple|Normal|AYS);/)
  })
})

describe('a pair', () => {
  it('of every sampler and every schedule is kept, or refused with one that takes it', () => {
    for (const sampler of samplers)
      for (const schedule of schedules) {
        const settled = settle({ sampler }, schedule)
        if (typeof settled !== 'string') expect(ImageRequest.pick({ sampler: true, schedule: true }).safeParse(settled).success).toBe(true)
        else if (sampler !== 'DPM++ 2M Karras') {
          expect(schedulesOf(sampler)).not.toContain(schedule)
          const [, instead = ''] = /that takes .* is (.+)$/.exec(settled) ?? []
          expect(settle({ sampler: instead as SamplerName }, schedule)).toEqual({ sampler: instead, schedule })
        }
      }
  })

  it('with Automatic is the sampler alone; one that has a name of its own has that name', () => {
    expect(settle({ sampler: 'Euler' }, 'Automatic')).toEqual({ sampler: 'Euler' })
    expect(settle({ sampler: 'DPM++ 2M' }, 'Karras')).toEqual({ sampler: 'DPM++ 2M Karras' })
    expect(settle({ sampler: 'DPM++ 2M', schedule: 'Karras' })).toEqual({ sampler: 'DPM++ 2M Karras' })
    for (const schedule of [undefined, 'Automatic', 'Karras'] as const)
      expect(settle({ sampler: 'DPM++ 2M Karras' }, schedule)).toEqual({ sampler: 'DPM++ 2M Karras' })
  })

  it('whose sampler says another schedule is refused', () => {
    expect(settle({ sampler: 'DPM++ 2M Karras' }, 'Beta')).toMatch(/says Karras, so the schedule cannot be Beta/)
    expect(settle({ sampler: 'DPM++ 2M SDE', schedule: 'Karras' }, 'Beta')).toMatch(/says Karras/)
  })

  it('that was kept is kept again', () => {
    for (const sampler of samplers)
      for (const schedule of schedulesOf(sampler)) {
        const once = settle({ sampler }, schedule)
        if (typeof once === 'string') throw new Error(once)
        expect(settle({ sampler: once.sampler }, once.schedule)).toEqual(once)
      }
  })
})
