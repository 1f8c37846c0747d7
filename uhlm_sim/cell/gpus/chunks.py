"""Chunked prefill: long jobs are split over the steps of a GPU, beside the short ones that come and go."""

from collections.abc import Sequence

from uhlm_sim.cell.jobs import Job


def pieces(left: Sequence[int], chunk_tokens: int) -> list[int]:
    """Return how many positions of each job the next step processes, `left` being what they still have, in order.

    Each gets an equal part of the chunk, or what it has left; what that leaves of the chunk goes to the first that
    have more. So short jobs never wait for a long one, and all get on (Agrawal and others, Sarathi-Serve, OSDI 2024,
    mix prompts with decoding so; there decoding comes first whatever it needs). At most as many jobs as the chunk has
    tokens.
    """
    equal = chunk_tokens // len(left)
    processed = [min(tokens, equal) for tokens in left]
    spare = chunk_tokens - sum(processed)
    for place, tokens in enumerate(left):
        more = min(tokens - processed[place], spare)
        processed[place] += more
        spare -= more
    return processed


class Split:
    """The jobs that one GPU has begun, step by step, in the order in which they came to it."""

    def __init__(self, chunk_tokens: int) -> None:
        self.jobs: list[Job] = []
        self._chunk_tokens = chunk_tokens
        self._left: list[int] = []
        self._shares: list[tuple[float, float]] = []  # of each job, in the GPU's seconds and positions so far

    def join(self, jobs: Sequence[Job], now: float) -> None:
        """Let jobs begin with the next step, which starts now; their `llm_tokens` grow step by step."""
        for job in jobs:
            job.verify_started_s = now
            self.jobs.append(job)
            self._left.append(job.llm_tokens)
            self._shares.append((0.0, 0.0))
            job.llm_tokens = 0

    def next_tokens(self) -> list[int]:
        """Return the positions of each job that the next step will process."""
        return pieces(self._left, self._chunk_tokens)

    def step(self, processed: Sequence[int], now: float, seconds: float) -> None:
        """Write down a step that starts now: each job has an equal share of its time and of its positions."""
        count, tokens = len(self.jobs), sum(processed)
        for place, job in enumerate(self.jobs):
            gpu_s, positions = self._shares[place]
            self._shares[place] = gpu_s, positions = gpu_s + seconds / count, positions + tokens / count
            self._left[place] -= processed[place]
            job.llm_tokens += processed[place]
            job.steps += 1
            job.batch_jobs, job.batch_tokens = count, tokens
            if job.steps > 1:
                job.batch_jobs = (now + seconds - job.verify_started_s) / gpu_s
                job.batch_tokens = positions * job.batch_jobs / job.steps

    def finished(self) -> list[Job]:
        """Remove and return the jobs that are processed."""
        done = [job for job, left in zip(self.jobs, self._left, strict=True) if left == 0]
        going = [place for place, left in enumerate(self._left) if left]
        self.jobs = [self.jobs[place] for place in going]
        self._left = [self._left[place] for place in going]
        self._shares = [self._shares[place] for place in going]
        return done
