"""The OpenAI client's errors in the project's words, without anything that may hold a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from farming_guide.errors import ProviderRefused, ProviderUnavailable

__all__ = ["translated"]


@contextmanager
def translated(service: str) -> Iterator[None]:
    """Turn the client's errors into ProviderRefused or ProviderUnavailable.

    Server messages are not repeated and causes are cut off (``from None``): a refusal may quote the key
    that was sent, and a traceback would print it.
    """
    import openai

    try:
        yield
    except openai.RateLimitError:
        raise ProviderUnavailable(
            f"{service} limits our rate or the account has no credit left (HTTP 429): try again later"
        ) from None
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise ProviderRefused(
            f"{service} refused our key (HTTP {error.status_code}): check OPENAI_API_KEY"
        ) from None
    except openai.APIStatusError as error:
        if error.status_code >= 500 or error.status_code in {408, 409}:
            raise ProviderUnavailable(
                f"{service} failed (HTTP {error.status_code}): try again later"
            ) from None
        raise ProviderRefused(
            f"{service} refused the request (HTTP {error.status_code}): check the model and base URL"
        ) from None
    except openai.APITimeoutError:
        raise ProviderUnavailable(f"{service} did not answer in time: try again later") from None
    except openai.APIConnectionError:
        raise ProviderUnavailable(
            f"{service} cannot be reached: check the network and the base URL"
        ) from None
    # The client trips over an answer that is not of its interface with plain Python errors.
    except (openai.OpenAIError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProviderRefused(
            f"{service} answered something that is not its interface ({type(error).__name__})"
        ) from None
