"""Chats whose answer has begun: a prompt may end with an assistant's message, which the model goes on with."""

from collections.abc import Mapping, Sequence

USER, ASSISTANT = "user", "assistant"


def opening_of(prompt: Sequence[Mapping[str, str]]) -> str:
    """The beginning of the answer that a prompt already holds; "" for one that ends with the user."""
    return prompt[-1]["content"] if prompt and prompt[-1]["role"] == ASSISTANT else ""


def answered_chat(prompt: Sequence[Mapping[str, str]], answer: str) -> tuple[Mapping[str, str], ...]:
    """The whole chat: ``answer`` in an assistant's message of its own, behind what the prompt begins it with."""
    opening = opening_of(prompt)
    asked = prompt[:-1] if opening else prompt
    return (*asked, {"role": ASSISTANT, "content": opening + answer})
