export { DarkroomClient, type ClientOptions, type ListFilter, type RunOptions, type SubmitOptions } from './client.ts'
export { Problem, type ProblemDocument } from './problem.ts'
export type * from './types.ts'
