"""Chats that tasks ask: a question in the words of an instruction, and an answer that has begun.

A prompt may end with an assistant's message, the beginning of the answer, which the model goes on with.
"""

from collections.abc import Mapping, Sequence

USER, ASSISTANT = "user", "assistant"
THOUGHT, THOUGHT_END = "<think>\n", "\n</think>\n\n"
"""How the answer of a model that thinks in tags begins, and what stands between its thought and its answer."""
QUESTION = "{question}"


def in_words(question: str, instruction: str, *, gap: str = "\n", is_first: bool = False) -> str:
    """The question and the instruction, behind a ``gap`` or (``is_first``) in front of one; "" adds nothing.

    An instruction with ``{question}`` in it says all the words itself, and where the question stands.
    """
    if QUESTION in instruction:
        return instruction.replace(QUESTION, question)
    parts = (instruction, question) if is_first else (question, instruction)
    return gap.join(part for part in parts if part)


def opening_of(prompt: Sequence[Mapping[str, str]]) -> str:
    """The beginning of the answer that a prompt already holds; "" for one that ends with the user."""
    return prompt[-1]["content"] if prompt and prompt[-1]["role"] == ASSISTANT else ""


def answered_chat(prompt: Sequence[Mapping[str, str]], answer: str) -> tuple[Mapping[str, str], ...]:
    """The whole chat: ``answer`` in an assistant's message of its own, behind what the prompt begins it with."""
    opening = opening_of(prompt)
    asked = prompt[:-1] if opening else prompt
    return (*asked, {"role": ASSISTANT, "content": opening + answer})
