export { DarkroomClient, type ListFilter, type RunOptions, type SubmitOptions } from './client.ts'
export type { ClientOptions } from './http.ts'
export { Problem, type ProblemDocument } from './problem.ts'
export type * from './types.ts'
