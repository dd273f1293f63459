"""The answer where the server itself has a fault."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glama_deploy.server.errors import ApiError, ClientGoneError, make_error_response


class FaultAnswer:
    """Answers 500 where the application raises. The guards around add their headers, so that browsers read the answer.

    The exception goes on to the ASGI server, which logs the traceback.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Set the next application.

        Args:
            app: the application.
        """
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on.

        Args:
            scope: the request.
            receive: receives the body.
            send: sends the answer.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except ClientGoneError:
            raise  # nobody waits for an answer
        except Exception:
            if not has_begun:
                # uvicorn closes the connection after an exception
                headers = {"Connection": "close"}
                fault = ApiError(500, "internal", "a fault in the server; its log has the details", headers)
                await make_error_response(scope["path"], fault)(scope, receive, send)
            raise
